"""The reproduction of Strauss et al. 2017, arXiv:1709.03423."""
