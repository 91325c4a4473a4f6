//! Dividing work among threads.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use smallvec::SmallVec;

use super::pool;

/// Elements that a thread must have to do to be worth asking.
const GRAIN: usize = 1 << 13;

/// The parts of a call's work; few enough to need no allocation.
pub type Parts<T> = SmallVec<[T; 2]>;

/// Divides `count` pieces of `size` elements each among up to `threads` threads.
pub fn divide(threads: usize, count: usize, size: usize) -> Parts<Range<usize>> {
    let useful = (count.saturating_mul(size) / GRAIN).clamp(1, threads.max(1)).min(count.max(1));
    (0..useful).map(|part| count * part / useful..count * (part + 1) / useful).collect()
}

/// Does all `parts`, on as many threads.
pub fn each<T: Send>(mut parts: Parts<T>, body: impl Fn(T) + Sync) {
    if parts.len() <= 1 {
        return parts.pop().into_iter().for_each(body);
    }
    let parts: Vec<Mutex<Option<T>>> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
    pool::each_part(parts.len(), &|index| {
        let part = parts[index].lock().unwrap_or_else(PoisonError::into_inner).take();
        part.into_iter().for_each(&body);
    });
}
