"""The names that releases give the weights of each network, one module a network.

A module may have ``SIGNATURES``, by which `inspect` knows files that are named by its tables.
"""
