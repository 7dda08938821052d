"""Writes tests/fixtures/jax_estimates.csv: libtpu's estimates for JAX's searches; then prints ours beside them.

Run with a Python that has JAX and libtpu (pip install jax==0.10.2 libtpu==0.0.51), where cargo is and libtpu is installed
for xlann too (xlann plugin install tpu):  python scripts/compare-estimates.py

The searches are those of JAX's documentation of jax.lax.approx_max_k: MIPS by approx_max_k of the scores, L2 by
approx_min_k of the half norms less the scores. Both programs are compiled by libtpu for TPUs that are described, with none
attached. The estimate is `optimal_seconds` of the compiler's cost analysis, that of a run on one chip: no measurement.
"""

import os
import pathlib
import subprocess

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

TOPOLOGIES = ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"]
ROWS, WIDTH, K, RECALL_TARGET = 1_000_000, 128, 10, 0.95


def products(queries, database, scores):
    return jax.lax.dot_general(queries, database, (((1,), (1,)), ((), ())), preferred_element_type=scores)


def mips(scores):
    return lambda queries, database: jax.lax.approx_max_k(
        products(queries, database, scores), K, recall_target=RECALL_TARGET
    )


def l2(scores):
    return lambda queries, database, half_norms: jax.lax.approx_min_k(
        half_norms - products(queries, database, scores), K, recall_target=RECALL_TARGET
    )


def main():
    lines, version = [], None
    for topology in TOPOLOGIES:
        device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
        version = device.client.platform_version
        sharding = SingleDeviceSharding(device)
        for metric in ("ip", "l2"):
            for dtype, scores in ((jnp.float32, jnp.float32), (jnp.bfloat16, jnp.bfloat16), (jnp.bfloat16, jnp.float32)):
                for queries in (128, 1024):
                    shapes = [((queries, WIDTH), dtype), ((ROWS, WIDTH), dtype), ((ROWS,), scores)]
                    arguments = [jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes]
                    search = mips(scores) if metric == "ip" else l2(scores)
                    arguments = arguments[: 2 if metric == "ip" else 3]
                    compiled = jax.jit(search).lower(*arguments).compile()
                    seconds = compiled.cost_analysis()["optimal_seconds"]
                    names = {jnp.float32: "f32", jnp.bfloat16: "bf16"}
                    lines.append(f"{topology},{metric},{names[dtype]},{names[scores]},{queries},{seconds!r}")
                    print(lines[-1], flush=True)
    head = [
        f"# libtpu's estimates, by scripts/compare-estimates.py with JAX {jax.__version__}, for searches of the {K}",
        f"# nearest of {ROWS} vectors of width {WIDTH}, recall target {RECALL_TARGET}, on one chip.",
        *(f"# libtpu {line}" for line in version.splitlines() if line.startswith("Built on")),
        "topology,metric,dtype,scores,queries,optimal_seconds",
    ]
    root = pathlib.Path(__file__).parent.parent
    (root / "tests/fixtures/jax_estimates.csv").write_text("\n".join(head + lines) + "\n")
    command = ["cargo", "test", "--test", "aot", "estimates_are_no_more_than_jaxs", "--", "--nocapture"]
    subprocess.run(command, cwd=root, check=True, env={**os.environ, "XLANN_REQUIRE": "tpu"})


if __name__ == "__main__":
    main()
