"""Opens and runs an ncnn model. The runner for phones and boards embeds this file, so it imports nothing but ncnn."""

import ncnn


def opened(param: str, threads: int, half: bool) -> "ncnn.Net":
    """Returns the network of a .param file, whose weights are beside it in a .bin file.

    Args:
        param: Path of the .param file.
        threads: Number of threads.
        half: Allow half precision. By default ncnn uses it on processors that have it, whatever the file says.

    Raises:
        OSError: ncnn cannot load the files.
    """
    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
    if not half:
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(param) or net.load_model(param.removesuffix(".param") + ".bin"):
        raise OSError(f"ncnn cannot load {param}")
    return net


def outputs(net: "ncnn.Net", planes: memoryview, names: list[str]) -> "list[ncnn.Mat]":
    """Runs a network.

    Args:
        net: From `opened`.
        planes: Image with channels first, float32 [3, H, W], without gaps. Any object with such a buffer will do.
        names: The name of the input, and those of the outputs.

    Raises:
        RuntimeError: ncnn cannot compute an output.
    """
    extractor = net.create_extractor()
    extractor.input(names[0], ncnn.Mat(planes))
    found = []
    for name in names[1:]:
        status, output = extractor.extract(name)
        if status:
            raise RuntimeError(f"ncnn ended with status {status}")
        found.append(output)
    return found
