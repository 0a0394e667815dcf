"""What runs on the device: the image pipeline, the worker in Python, the runners in C++ and the counting plugin."""
