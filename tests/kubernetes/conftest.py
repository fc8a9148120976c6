"""What tests on a real API server share."""

import time

import pytest

from millrace_operator.core.definitions import GROUP, VERSION, definitions
from tests.support.api_server import ApiServer, api_server

__all__ = ["api_server"]


@pytest.fixture(scope="session")
def cluster(api_server: ApiServer) -> ApiServer:
    """The API server with our custom resource definitions established, served and in its manual."""
    crds = {"apiVersion": "v1", "kind": "List", "items": list(definitions().values())}
    api_server.kubectl("apply", "--server-side", "-f", "-", manifest=crds)
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=20s", "crd", *definitions())
    with api_server.client() as client:
        manual = f"/openapi/v3/apis/{GROUP}/{VERSION}"
        deadline = time.monotonic() + 20
        plurals = [crd["spec"]["names"]["plural"] for crd in definitions().values()]
        while any(
            f"/namespaces/{{namespace}}/{plural}" not in client.get(manual).text
            or client.get(f"/apis/{GROUP}/{VERSION}/{plural}").is_error
            for plural in plurals
        ):
            assert time.monotonic() < deadline, "established, but not served"
            time.sleep(0.1)
    api_server.kubectl("api-resources")  # reads anew what there is
    return api_server
