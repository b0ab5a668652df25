"""Several hosts: freezelab on other machines, reached by SSH.

- `hosts_file`: the file that names them.
"""
