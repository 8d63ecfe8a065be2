"""Addresses for Services of type LoadBalancer, and who answers for them on the network.

In the control plane one controller gives each Service an address (`controller`, `addresses`); in each node's process a
speaker announces those that fall to its node (`speaker`, `layer2`). Names and rules are MetalLB's where it has them.
"""
