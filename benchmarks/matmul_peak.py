"""The fastest matrix product: `python -m benchmarks.matmul_peak --json`, in GFLOP/s of one device."""

import argparse
import json

from m2io_jax.parallel.peak import matmul_flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    given = parser.parse_args()
    found = {"size": given.size, "dtype": given.dtype, "gflops": matmul_flops(given.size, given.dtype, 7) / 1e9}
    print(json.dumps(found) if given.json else f"{found['gflops']:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
