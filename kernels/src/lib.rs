//! How to compute normalizations fast: the kernel ABI and the CPU kernels.
