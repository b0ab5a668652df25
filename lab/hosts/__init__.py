"""Several hosts: freezelab on other machines, reached by SSH.

- `hosts_file`: the file that names them. `link`: a connection to one.
- `check`: what they are and lack; `machines`: which are one machine. `recover`: frees what was left on them.
- `fleet_run`: guests on several hosts, frozen at one instant; `fleet_host` is one of the hosts.
    `fleet_events`: their metadata service.
- `distributed_run`: a run whose cells go to them, over a `cluster` of Dask: that of a scheduler, or an
    `ssh_cluster`. `worker_hosts`: who they are. On the hosts: `host_worker`, and `cell_task`, what it does,
    with a `cell_server` that starts the cells' processes.
- `parts`: what both kinds of runs have in common, the one record of their parts above all.
"""
