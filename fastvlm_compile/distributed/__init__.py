"""Builds on many machines: stages as tasks on Dask distributed, over a store that workers share.

    coordinate   a recipe's stages, submitted as their inputs finish
    cluster      the connection: tasks, their progress, how they end
    handshake    what a worker must show before it is given anything
    task         one stage, run by a worker as a local build would
    location     where the store is: a path, or a URL with a folder of each machine
    mirror       a store whose entries are kept at a URL
    remote       files and manifests at an fsspec URL

A local build imports none of it.
"""
