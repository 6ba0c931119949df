"""A sweep under SLURM: asks for jobs through dask-jobqueue, each a worker, and hands the runs to them.

    pip install "dask-jobqueue>=0.9"
    .venv/bin/python benchmarks/cluster_slurm.py --print                            # the script that SLURM gets
    .venv/bin/python benchmarks/cluster_slurm.py benchmarks/sweeps/starts.yaml --jobs 20 --gpus 1 --queue gpu

Run it on a login node, in a terminal that stays (tmux): scheduler and client live in this process, runs in the jobs.
The project's folder must lie on a file system that all nodes share. A job that its time limit ends is asked for anew,
its run tried once more; after that, start the script again: what is finished stays.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from covid_course.plans import read_plan
from covid_course.sweep import summary, sweep
from covid_utils.core.files import PROJECT


def main() -> int:
    from dask_jobqueue import SLURMCluster

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", nargs="?", default=PROJECT / "benchmarks" / "sweeps" / "starts.yaml")
    parser.add_argument("--jobs", type=int, default=4, help="at most so many at once")
    parser.add_argument("--cores", type=int, default=4, help="of a job")
    parser.add_argument("--gpus", type=int, default=0, help="of a job: 0 or 1")
    parser.add_argument("--memory", default="8GB", help="of a job")
    parser.add_argument("--walltime", default="04:00:00", help="of a job")
    parser.add_argument("--queue", help="SLURM's partition")
    parser.add_argument("--interface", help="network device that the nodes share, such as ib0")
    parser.add_argument("--print", action="store_true", help="show the script that SLURM gets, and stop")
    options = parser.parse_args()
    _, runs = read_plan(options.plan)  # a wrong plan stops here, before a job is asked for
    threads = [f"export {name}={options.cores}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    paths = [
        f"export {name}={shlex.quote(os.environ[name])}"
        for name in ("COVID_UTILS_HOME", "PYTHONPATH")
        if name in os.environ
    ]
    with SLURMCluster(
        cores=1,  # Dask's word for runs at a time; the threads of a run are in the job's environment
        processes=1,
        job_cpu=options.cores,
        memory=options.memory,
        walltime=options.walltime,
        queue=options.queue,
        interface=options.interface,
        job_extra_directives=[f"--gres=gpu:{options.gpus}"] * bool(options.gpus),
        job_script_prologue=[*threads, *paths],
        scheduler_options={"dashboard_address": "127.0.0.1:0", "dashboard": False, "allowed_failures": 1000},
        worker_extra_args=["--no-dashboard"],
        python=sys.executable,
    ) as cluster:
        if options.print:
            print(cluster.job_script())
            return 0
        cluster.adapt(minimum=1, maximum=min(options.jobs, len(runs)))  # as many jobs as there is work
        table = sweep(options.plan, cluster.scheduler_address)
    print(summary(table))
    return int((table.status != "finished").any())


if __name__ == "__main__":
    raise SystemExit(main())
