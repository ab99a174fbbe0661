"""Validates the description of a server's HTTP routes, as OpenAPI has it.

    RAGWARD_URL=http://127.0.0.1:8980 python3 openapi_valid.py
"""

import json
import os
from urllib.request import urlopen

from openapi_spec_validator import OpenAPIV31SpecValidator


def main():
    with urlopen(f"{os.environ['RAGWARD_URL']}/openapi.json") as answer:
        described = json.load(answer)
    errors = OpenAPIV31SpecValidator(described).iter_errors()
    faults = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in errors]
    assert not faults, "\n".join(faults)
    assert len(described["paths"]) > 10, "the routes are described"


if __name__ == "__main__":
    main()
    print("done")
