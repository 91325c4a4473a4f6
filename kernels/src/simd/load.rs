//! What stages read.

use super::isa::pace;
use super::run::{Ahead, Soon};
use super::{Element, Isa, Lanes, Real};

/// Something a stage reads a vector of at every index: a run, a constant, or a tuple or an array of those.
pub trait Load<S: Isa, R: Real> {
    /// What it gives.
    type Item: Copy;

    /// Elements in a lane of a vector.
    const TERMS: usize = 1;

    /// Number of elements, or of lanes; `None` if any.
    fn extent(&self) -> Option<usize>;

    /// The vector at `index`.
    ///
    /// # Safety
    /// `index` plus the number of lanes is within the extent.
    unsafe fn load(&self, simd: S, index: usize) -> Self::Item;

    /// The `K` vectors from `index` on.
    ///
    /// # Safety
    /// `index` plus `K` times the number of lanes is within the extent.
    #[inline(always)]
    unsafe fn load_all<const K: usize>(&self, simd: S, index: usize) -> [Self::Item; K] {
        array(
            #[inline(always)]
            |k| {
                // SAFETY: the caller's promise.
                unsafe { self.load(simd, index + k * R::lanes::<S>()) }
            },
        )
    }

    /// The first `count` lanes at `index`; the others hold anything.
    ///
    /// # Safety
    /// `index + count` is within the extent; `count` is less than the number of lanes.
    unsafe fn load_head(&self, simd: S, index: usize, count: usize) -> Self::Item;
}

impl<S: Isa, R: Real, L: Load<S, R>, const N: usize> Load<S, R> for [L; N] {
    type Item = [L::Item; N];

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        common_of(self, L::extent)
    }

    #[inline(always)]
    unsafe fn load(&self, simd: S, index: usize) -> Self::Item {
        // A loop: what iterators and `map` call may not be compiled for the instruction set.
        // SAFETY: the caller's promise holds for every part, as `common` made sure.
        unsafe {
            let mut items = [self[0].load(simd, index); N];
            let mut i = 1;
            while i < N {
                items[i] = self[i].load(simd, index);
                i += 1;
            }
            items
        }
    }

    #[inline(always)]
    unsafe fn load_all<const K: usize>(&self, simd: S, index: usize) -> [Self::Item; K] {
        // SAFETY: as above.
        let parts: [[L::Item; K]; N] = array(
            #[inline(always)]
            |i| unsafe { self[i].load_all(simd, index) },
        );
        array(
            #[inline(always)]
            |k| {
                array(
                    #[inline(always)]
                    |i| parts[i][k],
                )
            },
        )
    }

    #[inline(always)]
    unsafe fn load_head(&self, simd: S, index: usize, count: usize) -> Self::Item {
        // SAFETY: as above.
        unsafe {
            let mut items = [self[0].load_head(simd, index, count); N];
            let mut i = 1;
            while i < N {
                items[i] = self[i].load_head(simd, index, count);
                i += 1;
            }
            items
        }
    }
}

/// The same value everywhere.
#[derive(Clone, Copy)]
pub struct Splat<R>(pub R);

impl<S: Isa, R: Real> Load<S, R> for Splat<R> {
    type Item = Lanes<S, R>;

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        None
    }

    #[inline(always)]
    unsafe fn load(&self, simd: S, _: usize) -> Self::Item {
        Lanes::splat(simd, self.0)
    }

    #[inline(always)]
    unsafe fn load_head(&self, simd: S, _: usize, _: usize) -> Self::Item {
        Lanes::splat(simd, self.0)
    }
}

macro_rules! tuple {
    ($($name:ident $index:tt),*) => {
        impl<S: Isa, R: Real, $($name: Load<S, R>),*> Load<S, R> for ($($name,)*) {
            type Item = ($($name::Item,)*);

            #[inline(always)]
            fn extent(&self) -> Option<usize> {
                let known = None;
                $(let known = common(known, self.$index.extent());)*
                known
            }

            #[inline(always)]
            unsafe fn load(&self, simd: S, index: usize) -> Self::Item {
                // SAFETY: the caller's promise holds for every part, as `common` made sure.
                unsafe { ($(self.$index.load(simd, index),)*) }
            }

            #[inline(always)]
            unsafe fn load_all<const K: usize>(&self, simd: S, index: usize) -> [Self::Item; K] {
                // SAFETY: as above.
                let parts = unsafe { ($(self.$index.load_all::<K>(simd, index),)*) };
                array(#[inline(always)] |k| ($(parts.$index[k],)*))
            }

            #[inline(always)]
            unsafe fn load_head(&self, simd: S, index: usize, count: usize) -> Self::Item {
                // SAFETY: as above.
                unsafe { ($(self.$index.load_head(simd, index, count),)*) }
            }
        }
    };
}
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);

/// Runs that will be read soon.
pub trait Fetch: Copy {
    /// Whether anything is written past the caches meanwhile.
    const STREAMS: bool = true;

    /// Asks for the cache lines of what is at `index`, one after the other; answers `index`, when the next may be asked for.
    fn fetch(self, index: usize) -> usize;
}

impl<E: Element> Fetch for Soon<E> {
    #[inline(always)]
    fn fetch(self, index: usize) -> usize {
        self.run.fetch(index);
        // What is half as large takes longer than memory does.
        if self.waits && !E::IS_NARROW { pace(index) } else { index }
    }
}

impl<E: Element> Fetch for Ahead<E> {
    #[inline(always)]
    fn fetch(self, index: usize) -> usize {
        self.fetch(index);
        index
    }
}

impl<F: Fetch, const N: usize> Fetch for [F; N] {
    #[inline(always)]
    fn fetch(self, index: usize) -> usize {
        let mut index = index;
        for run in self {
            index = run.fetch(index);
        }
        index
    }
}

impl<F: Fetch> Fetch for Option<F> {
    #[inline(always)]
    fn fetch(self, index: usize) -> usize {
        match self {
            Some(run) => run.fetch(index),
            None => index,
        }
    }
}

/// Nothing, while what is written stays in the caches: less code than for [`()`](Fetch).
#[derive(Clone, Copy)]
pub struct Cached;

impl Fetch for Cached {
    const STREAMS: bool = false;

    #[inline(always)]
    fn fetch(self, index: usize) -> usize {
        index
    }
}

impl Fetch for () {
    #[inline(always)]
    fn fetch(self, index: usize) -> usize {
        index
    }
}

/// An array of at least one value. Unlike the standard library's functions for that, it is sure to be inlined, as
/// [`Task::run`](super::Task::run) demands.
#[inline(always)]
pub fn array<T: Copy, const N: usize>(mut make: impl FnMut(usize) -> T) -> [T; N] {
    let mut values = [make(0); N];
    for (i, value) in values.iter_mut().enumerate().skip(1) {
        *value = make(i);
    }
    values
}

/// The one length that two parts have.
///
/// # Panics
/// If they differ: it is what makes the stages' unchecked loads sound.
#[inline(always)]
pub(super) fn common(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    let (Some(one), Some(other)) = (one, other) else { return one.or(other) };
    assert!(one == other, "runs of different lengths");
    Some(one)
}

/// The one length that all parts of an array have.
///
/// # Panics
/// If they differ.
#[inline(always)]
pub(super) fn common_of<T>(parts: &[T], extent: impl Fn(&T) -> Option<usize>) -> Option<usize> {
    let mut known = None;
    for part in parts {
        known = common(known, extent(part));
    }
    known
}
