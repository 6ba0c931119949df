"""A sweep on Kubernetes: asks dask-kubernetes' operator for worker pods, and hands the runs to them.

    pip install "dask-kubernetes>=2024.9"
    .venv/bin/python benchmarks/cluster_kubernetes.py benchmarks/sweeps/starts.yaml --image IMAGE --claim CLAIM

Run it in a pod that mounts the volume CLAIM at /shared and has COVID_UTILS_HOME=/shared; the workers get both, too.
IMAGE holds this project, installed, and is the same everywhere. The operator must be in the cluster (its documentation
says how). Pods that are taken away are made anew, and their run is tried once more; what is finished stays.
"""

from __future__ import annotations

import argparse

from covid_course.plans import read_plan
from covid_course.sweep import summary, sweep

SHARED = "/shared"


def specification(image: str, claim: str, pods: int, cores: int, gpus: int, memory: str) -> dict:
    """The cluster as the operator takes it: one run a pod, and in each the volume."""
    from dask_kubernetes.operator import make_cluster_spec

    env = {"COVID_UTILS_HOME": SHARED, "OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores)}
    env["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "1000"  # runs count for themselves how often they kill
    limits = {"cpu": str(cores), "memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    command = ["dask", "worker", "--nthreads", "1"]  # its name and ports are the operator's
    spec = make_cluster_spec("sweep", image=image, n_workers=pods, env=env, worker_command=command)
    pod = spec["spec"]["worker"]["spec"]
    pod["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}]
    pod["containers"][0] |= {"resources": {"limits": limits}, "volumeMounts": [{"name": "shared", "mountPath": SHARED}]}
    return spec


def main() -> int:
    from dask_kubernetes.operator import KubeCluster

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("--image", required=True, help="of the workers and the scheduler")
    parser.add_argument("--claim", required=True, help="the persistent volume claim that all pods mount")
    parser.add_argument("--pods", type=int, default=4)
    parser.add_argument("--cores", type=int, default=4, help="of a pod")
    parser.add_argument("--gpus", type=int, default=0, help="of a pod: 0 or 1")
    parser.add_argument("--memory", default="8Gi", help="of a pod")
    options = parser.parse_args()
    _, runs = read_plan(options.plan)  # a wrong plan stops here, before a pod is asked for
    pods = min(options.pods, len(runs))
    spec = specification(options.image, options.claim, pods, options.cores, options.gpus, options.memory)
    with KubeCluster(custom_cluster_spec=spec) as cluster:
        table = sweep(options.plan, cluster.scheduler_address)
    print(summary(table))
    return int((table.status != "finished").any())


if __name__ == "__main__":
    raise SystemExit(main())
