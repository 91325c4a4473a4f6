//! From a function on one thread's values to one on the lanes of a warp.
//!
//! The functions run on the values of inactive lanes too, whatever those are, so they must not panic.

use std::sync::Arc;

use crate::program::{Alu, WARP};

/// Of one operand.
pub(crate) fn one(f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Alu {
    Arc::new(move |a, _, _, result| (0..WARP).for_each(|i| result[i] = f(a[i])))
}

/// Of two operands.
pub(crate) fn two(f: impl Fn(u64, u64) -> u64 + Send + Sync + 'static) -> Alu {
    Arc::new(move |a, b, _, result| (0..WARP).for_each(|i| result[i] = f(a[i], b[i])))
}

/// Of three operands.
pub(crate) fn three(f: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static) -> Alu {
    Arc::new(move |a, b, c, result| (0..WARP).for_each(|i| result[i] = f(a[i], b[i], c[i])))
}

/// `f` on both halves of packed operands where `count` is 2, else `f` itself.
pub(crate) fn packed(count: u32, f: impl Fn(u64, u64, u64) -> u64 + Send + Sync + 'static) -> Alu {
    if count == 1 {
        return three(f);
    }
    three(move |a, b, c| f(a & 0xffff, b & 0xffff, c & 0xffff) | f(a >> 16, b >> 16, c >> 16) << 16)
}
