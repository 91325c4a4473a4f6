//! Memory that a thread keeps from call to call: a large allocation is given back to the system when it is freed, and every
//! page of the next costs a fault.

use std::cell::Cell;
use std::marker::PhantomData;

use pulp::bytemuck::cast_slice_mut;

use crate::simd::Real;

thread_local! {
    static KEPT: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
}

/// The most numbers that are kept.
const MOST: usize = 1 << 20;

/// Room for numbers of a working precision, all zero at first.
pub struct Scratch<R> {
    room: Vec<f64>,
    count: usize,
    _numbers: PhantomData<R>,
}

impl<R: Real> Scratch<R> {
    /// Room for `count` numbers.
    pub fn take(count: usize) -> Self {
        let mut room = KEPT.take();
        room.clear();
        room.resize((count * size_of::<R>()).div_ceil(size_of::<f64>()), 0.0);
        Scratch { room, count, _numbers: PhantomData }
    }

    /// The numbers.
    pub fn values(&mut self) -> &mut [R] {
        &mut cast_slice_mut(&mut self.room)[..self.count]
    }
}

impl<R> Drop for Scratch<R> {
    fn drop(&mut self) {
        if self.room.capacity() <= MOST {
            KEPT.set(std::mem::take(&mut self.room));
        }
    }
}
