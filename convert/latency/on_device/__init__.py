"""What runs on the device: the image pipeline, the worker in Python, the C++ runner and the counting plugin."""
