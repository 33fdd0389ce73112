"""Exact search in a large gallery: python -m tests.bench.retrieval [--rows 1000000]

Ranks of matches among --rows embeddings for --queries of them, by the devices and by
numpy (--numpy of the queries; the ranks must be the same), and the 50 nearest.
"""

import argparse
import functools
import resource

import jax
import numpy as np

from rsclip_jax import metrics
from rsclip_jax.evals import search
from rsclip_jax.train.sharding import make_mesh
from tests.bench.timing import machine, timed


def make_embeddings(rows: int, width: int, noise: float):
    """(queries, gallery) of unit norm, query i a noisy gallery i."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((rows, width), np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries = rng.standard_normal((rows, width), np.float32)
    queries *= noise / np.linalg.norm(queries, axis=1, keepdims=True)
    queries += gallery
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return queries, gallery


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=2_048)
    parser.add_argument("--numpy", type=int, default=256, help="queries for numpy")
    parser.add_argument("--noise", type=float, default=6.0)
    parser.add_argument("--memory", type=int, default=search.MEMORY)
    args = parser.parse_args()
    print(
        f"{machine()}; {jax.devices()[0].device_kind}, {jax.device_count()} device(s)"
    )
    queries, gallery = make_embeddings(args.rows, args.width, args.noise)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mesh, some = make_mesh(), np.arange(args.queries)
    owners = some, np.arange(args.rows)
    found = {}

    def ranks(n: int) -> None:
        pair = owners[0][:n], owners[1]
        found["devices"] = search.match_ranks(
            queries[:n], gallery, pair, mesh=mesh, memory=args.memory
        )

    def by_numpy() -> None:
        pair = owners[0][: args.numpy], owners[1]
        found["numpy"] = metrics.match_ranks(queries[: args.numpy], gallery, pair)

    ranks(min(args.queries, 2048))  # compiled
    seconds = timed(lambda: ranks(args.queries))
    report("ranks", seconds, args)
    print(f"  ranks: median {np.median(found['devices']):.0f} of {args.rows:,}")
    nearest = functools.partial(
        search.nearest, gallery=gallery, k=50, mesh=mesh, memory=args.memory
    )
    nearest(queries[: min(args.queries, 2048)])
    report("50 nearest", timed(lambda: nearest(queries[: args.queries])), args)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"  peak memory of the process over the embeddings': {grown / 2**20:.2f} GiB")
    ratio = timed(by_numpy) / args.numpy / (seconds / args.queries)
    same = np.array_equal(found["numpy"], found["devices"][: args.numpy])
    print(
        f"  numpy in float64 takes {ratio:.2f} times as long a query;"
        f" the same {args.numpy} ranks: {same}"
    )


def report(what: str, seconds: float, args: argparse.Namespace) -> None:
    """A line: how long, and how long all rows against all would take."""
    whole = seconds / args.queries * args.rows
    print(
        f"  {what}: {args.queries:,} queries x {args.rows:,} x {args.width} in"
        f" {seconds:.1f} s; {args.rows:,} queries would take {whole / 60:.1f} min"
    )


if __name__ == "__main__":
    main()
