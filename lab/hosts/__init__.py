"""Several hosts: freezelab on other machines, reached by SSH.

- `hosts_file`: the file that names them.
- `distributed_run`: a run whose cells go to them, over a `cluster` of Dask; `cell_task` is what its workers
    do.
"""
