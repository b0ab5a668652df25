"""Several hosts: freezelab on other machines, reached by SSH.

- `hosts_file`: the file that names them. `link`: a connection to one.
- `check`: what they are and lack. `recover`: frees what was left on them.
- `distributed_run`: a run whose cells go to them, over a `cluster` of Dask; `cell_task` is what its workers
    do.
"""
