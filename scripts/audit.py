"""Look for known vulnerabilities in what files pin: `python scripts/audit.py PIP_AUDIT FILE ...`.

Asks osv.dev, and fails where it knows of one. Where it cannot be reached, this says that nothing was
audited and succeeds: a network that is missing is no vulnerability. AUDIT_REQUIRED=1 makes it fail then
too, as it should on a server that has one.
"""

import json
import os
import subprocess
import sys

# Not the registry: a mirror that knows of no vulnerabilities looks like one where there are none.
_OPTIONS = (
    *("--no-deps", "--disable-pip"),
    *("--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off"),
)


def main(pip_audit: str, *files: str) -> int:
    """The exit status: 1 where vulnerabilities are known, or where an audit must be and cannot."""
    return max(_audit(pip_audit, file) for file in files)


def _audit(pip_audit: str, file: str) -> int:
    command = [pip_audit, "--requirement", file, *_OPTIONS]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if "ConnectionError" in done.stderr or "ConnectTimeout" in done.stderr:
        print(f"{file}: not audited, no vulnerability service can be reached (api.osv.dev)")
        return int(os.environ.get("AUDIT_REQUIRED") == "1")
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(done.stderr, end="", file=sys.stderr)
        return done.returncode or 1
    audited = [each for each in dependencies if "skip_reason" not in each]
    known = [(each["name"], each["version"], found) for each in audited for found in each["vulns"]]
    for name, version, found in known:
        mended = ", ".join(found["fix_versions"]) or "no version yet"
        print(f"{name} {version}: {found['id']}, mended by {mended}")
    print(
        f"{file}: {len(audited)} of {len(dependencies)} packages audited, {len(known)} known vulnerabilities"
    )
    return int(bool(known) or not audited)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
