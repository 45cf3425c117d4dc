"""The names that releases give the weights of each network, one module a network."""
