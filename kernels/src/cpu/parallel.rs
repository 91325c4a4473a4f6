//! Threads.

use std::ops::Range;

/// Elements that a thread must have to do to be worth waking.
const GRAIN: usize = 1 << 14;

/// Divides `count` pieces of `size` elements each among up to `threads` threads.
pub fn divide(threads: usize, count: usize, size: usize) -> Vec<Range<usize>> {
    let useful = (count.saturating_mul(size) / GRAIN).clamp(1, threads.max(1)).min(count.max(1));
    (0..useful).map(|part| count * part / useful..count * (part + 1) / useful).collect()
}

/// Does all `parts`, each on a thread of its own; the first on this one.
pub fn each<T: Send>(mut parts: Vec<T>, body: impl Fn(T) + Sync) {
    let rest = parts.split_off(parts.len().min(1));
    let first = parts.pop();
    if rest.is_empty() {
        first.into_iter().for_each(body);
        return;
    }
    rayon::in_place_scope(|scope| {
        let body = &body;
        for part in rest {
            scope.spawn(move |_| body(part));
        }
        first.into_iter().for_each(body);
    });
}
