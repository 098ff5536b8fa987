"""A device plugin that advertises two GPUs that do not exist. Runs on the node: python gpu_plugin.py.

Messages of the kubelet's device plugin API (v1beta1) are encoded by hand, as their classes are in no Python package.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

FOLDER = "/var/lib/kubelet/device-plugins"
NAME, RESOURCE = "cartwheel.sock", "nvidia.com/gpu"
DEVICES = ("gpu-0", "gpu-1")


def field(number: int, value: str | bytes) -> bytes:
    """Encodes a string or message, shorter than 128 bytes, as a field."""
    content = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(content)]) + content


def list_and_watch(_: bytes, __: grpc.ServicerContext) -> Iterator[bytes]:
    """Lists the devices, and keeps the stream open."""
    yield b"".join(field(1, field(1, name) + field(2, "Healthy")) for name in DEVICES)
    while True:
        time.sleep(1)


def allocate(request: bytes, _: grpc.ServicerContext) -> bytes:
    """Sets the variable of NVIDIA's plugin in the container."""
    chosen = ",".join(name for name in DEVICES if name.encode() in request)
    return field(1, field(1, field(1, "NVIDIA_VISIBLE_DEVICES") + field(2, chosen)))


def nothing(_: bytes, __: grpc.ServicerContext) -> bytes:
    """Returns an empty message."""
    return b""


def main() -> None:
    """Serves the devices and registers them with the kubelet."""
    methods = {
        "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(nothing),
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(list_and_watch),
        "Allocate": grpc.unary_unary_rpc_method_handler(allocate),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods)])
    server.add_insecure_port(f"unix://{FOLDER}/{NAME}")
    server.start()
    with grpc.insecure_channel(f"unix://{FOLDER}/kubelet.sock") as channel:
        register = channel.unary_unary("/v1beta1.Registration/Register")
        register(field(1, "v1beta1") + field(2, NAME) + field(3, RESOURCE))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
