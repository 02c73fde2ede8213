"""Helm, for the tests of the chart: the library that script/setup brings, as a command.

    python3 helm.py LIBRARY KUBECONFIG NAMESPACE (install|upgrade) RELEASE CHART VALUES_AS_JSON
    python3 helm.py LIBRARY KUBECONFIG NAMESPACE uninstall RELEASE
"""

import ctypes
import sys

# As the command of Helm 4 does unless told otherwise; but nothing here becomes ready.
OPTIONS = b'{"wait": false, "server_side_apply": "true", "disable_openapi_validation": false}'

library, kubeconfig, namespace, action, release, *rest = sys.argv[1:]
helm = ctypes.CDLL(library)
helm.helm_sdkpy_last_error.restype = ctypes.c_char_p
helm.helm_sdkpy_config_destroy.argtypes = [ctypes.c_ulonglong]
text = ctypes.c_char_p
for name in ("install", "upgrade"):
    getattr(helm, f"helm_sdkpy_{name}").argtypes = [ctypes.c_ulonglong] + [text] * 5 + [ctypes.POINTER(text)]
helm.helm_sdkpy_uninstall.argtypes = [ctypes.c_ulonglong, text, ctypes.c_int, ctypes.c_int, ctypes.POINTER(text)]


def check(code):
    if code != 0:
        sys.exit((helm.helm_sdkpy_last_error() or b"helm failed").decode())


handle, result = ctypes.c_ulonglong(), text()
check(helm.helm_sdkpy_config_create(namespace.encode(), kubeconfig.encode(), None, b"{}", ctypes.byref(handle)))
if action == "uninstall":
    check(helm.helm_sdkpy_uninstall(handle, release.encode(), 0, 60, ctypes.byref(result)))
else:
    chart, values = rest
    act = getattr(helm, f"helm_sdkpy_{action}")
    check(act(handle, release.encode(), chart.encode(), values.encode(), b"", OPTIONS, ctypes.byref(result)))
helm.helm_sdkpy_config_destroy(handle)
