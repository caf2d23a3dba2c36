"""Drives a control plane over REST, with nothing but Python's standard library.

    python3 tests/python/rest.py http://127.0.0.1:9401

Adds a pool with two backends and a route, shifts weight from one backend to the
other without overwriting what somebody else changed meanwhile, and removes it all.
"""

import json
import sys
import urllib.error
import urllib.request
import uuid


class Refused(Exception):
    """A problem as RFC 9457 has it."""

    def __init__(self, problem):
        faults = [f"{fault['pointer']}: {fault['detail']}" for fault in problem.get("errors", [])]
        super().__init__("\n  ".join([problem["detail"], *faults]))
        self.status = problem["status"]


class ControlPlane:
    """One control plane's /v1."""

    def __init__(self, base):
        self.base = base.rstrip("/") + "/v1"

    def call(self, method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer), answer.headers.get("ETag")
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error)) from None

    def change(self, path, change):
        """Reads, changes and writes back; again, if somebody else was faster."""
        while True:
            found, etag = self.call("GET", path)
            try:
                return self.call("PATCH", path + "?wait=5s", change(found), If_Match=etag)[0]
            except Refused as refused:
                if refused.status != 412:
                    raise


def main(base):
    control = ControlPlane(base)
    if any(pool["name"] == "shop" for pool in control.call("GET", "/pools")[0]["items"]):
        sys.exit("there is a pool shop already, which this would change and remove; use a control plane without one")
    document = {
        "pools": [{"name": "shop", "algorithm": "weighted_round_robin", "health": "none"}],
        "backends": [
            {"id": "shop-a", "pool": "shop", "address": "127.0.0.1:8001", "weight": 9},
            {"id": "shop-b", "pool": "shop", "address": "127.0.0.1:8002", "weight": 1},
        ],
        "routes": [{"name": "shop", "path_prefix": "/shop", "pool": "shop"}],
    }
    # The key makes it safe to send this again when the answer got lost.
    key = str(uuid.uuid4())
    applied, _ = control.call("POST", "/apply?wait=5s", document, Idempotency_Key=key)
    for change in applied["changes"]:
        print(change["action"], change["kind"], change["name"])

    shifted = control.change("/backends/shop-a", lambda found: {"weight": found["weight"] - 4})
    control.change("/backends/shop-b", lambda found: {"weight": found["weight"] + 4})
    print("shop-a has weight", shifted["weight"], "on", shifted["applied"]["applied"], "proxies")

    try:
        control.call("PATCH", "/backends/shop-a", {"wieght": 3, "address": "nowhere"})
    except Refused as refused:
        print("refused with", refused.status)
        print(" ", refused)

    control.call("POST", "/backends/shop-a/drain?wait=5s")
    for backend in control.call("GET", "/backends?pool=shop")[0]["items"]:
        print(backend["id"], backend["state"], backend["status"]["verdict"])
    for path in ["/routes/shop", "/backends/shop-a", "/backends/shop-b", "/pools/shop"]:
        control.call("DELETE", path)
    print("removed")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9401")
