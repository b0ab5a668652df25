"""What cloud-init makes of the metadata of Compute Engine and of EC2, by its own datasources; as JSON.
Argument: gce or ec2. Runs under the suite's or the system's Python with the unpacked packages' modules."""

import json
import logging
import sys
from importlib import import_module
from types import SimpleNamespace

ADDRESS = "http://169.254.169.254"


def gce() -> object:
    """All that it reads at a boot. platform_check: it looks for Google's name in the machine's DMI."""
    datasource = import_module("cloudinit.sources.DataSourceGCE")
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, force=True)
    params = SimpleNamespace(num_retries=1, sec_between_retries=1, timeout_seconds=5, max_wait_seconds=5)
    address = f"{ADDRESS}/computeMetadata/v1/"
    return datasource.read_md(address=address, url_params=params, platform_check=False)


def ec2() -> object:
    """All that it reads at a boot, with a session token, as on a machine whose DMI is Amazon's."""
    datasource = import_module("cloudinit.sources.DataSourceEc2")
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, force=True)
    paths = import_module("cloudinit.helpers").Paths({"cloud_dir": "/nonexistent", "run_dir": "/nonexistent"})
    source = datasource.DataSourceEc2({}, None, paths)
    source._cloud_name = datasource.CloudNames.AWS
    return source.crawl_metadata()


if __name__ == "__main__":
    found = {"gce": gce, "ec2": ec2}[sys.argv[1]]()
    json.dump(
        found, sys.stdout, default=lambda value: value.decode() if isinstance(value, bytes) else str(value)
    )
