//! What stages write.

use super::load::{Load, Splat, array, common, common_of};
use super::run::{Sink, Source};
use super::{Element, Isa, Lanes, Real};

/// Something a stage writes a vector to at every index.
pub trait Store<S: Isa, R: Real> {
    /// What it takes.
    type Item: Copy;

    /// Number of elements; `None` if any.
    fn extent(&self) -> Option<usize>;

    /// Vectors that make a cache line.
    const LINE: usize = 1;

    /// Whether it can be written past the caches.
    #[inline(always)]
    fn streaming(&self) -> Streaming {
        Streaming::Indifferent
    }

    /// Writes the vector at `index`.
    ///
    /// # Safety
    /// `index` plus the number of lanes is within the extent.
    unsafe fn store(&self, simd: S, index: usize, item: Self::Item);

    /// Writes the `K` vectors from `index` on.
    ///
    /// # Safety
    /// `index` plus `K` times the number of lanes is within the extent.
    #[inline(always)]
    unsafe fn store_all<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
        for (k, item) in items.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { self.store(simd, index + k * R::lanes::<S>(), item) };
        }
    }

    /// Writes the `K` vectors from `index` on: a cache line, past the caches unless it is indifferent.
    ///
    /// # Safety
    /// `index` plus `K` times the number of lanes is within the extent; `K` is [`LINE`](Self::LINE), `index` is that of
    /// [`Streaming::From`] or whole lines behind it.
    #[inline(always)]
    unsafe fn stream<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
        // SAFETY: the caller's promise.
        unsafe { self.store_all(simd, index, items) };
    }

    /// Writes the first `count` lanes at `index`.
    ///
    /// # Safety
    /// `index + count` is within the extent; `count` is less than the number of lanes.
    unsafe fn store_head(&self, simd: S, index: usize, count: usize, item: Self::Item);
}

/// Whether a run can be written past the caches, in whole cache lines.
#[derive(Clone, Copy, PartialEq)]
pub enum Streaming {
    /// It goes along with others, and stays in the caches.
    Indifferent,
    /// It must not be, or cannot.
    Never,
    /// From this element on, where its first whole cache line is.
    From(usize),
}

impl Streaming {
    /// Of two runs that are written together.
    #[inline(always)]
    fn and(self, other: Streaming) -> Streaming {
        match (self, other) {
            (Streaming::Indifferent, other) | (other, Streaming::Indifferent) => other,
            (one, other) if one == other => one,
            _ => Streaming::Never,
        }
    }
}

/// A run that is to stay in the caches, whatever is written with it.
pub struct Kept<'a, E>(pub Sink<'a, E>);

impl<S: Isa, E: Element> Store<S, E::Real> for Kept<'_, E> {
    type Item = Lanes<S, E::Real>;

    const LINE: usize = <Sink<'_, E> as Store<S, E::Real>>::LINE;

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        Store::<S, E::Real>::extent(&self.0)
    }

    #[inline(always)]
    unsafe fn store_all<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
        // SAFETY: the caller's promise.
        unsafe { self.0.store_all(simd, index, items) };
    }

    #[inline(always)]
    unsafe fn store(&self, simd: S, index: usize, item: Self::Item) {
        // SAFETY: the caller's promise.
        unsafe { self.0.store(simd, index, item) };
    }

    #[inline(always)]
    unsafe fn store_head(&self, simd: S, index: usize, count: usize, item: Self::Item) {
        // SAFETY: the caller's promise.
        unsafe { self.0.store_head(simd, index, count, item) };
    }
}

/// Where results go that nobody asked for.
#[derive(Clone, Copy)]
pub struct Discard;

impl<S: Isa, R: Real> Store<S, R> for Discard {
    type Item = Lanes<S, R>;

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        None
    }

    #[inline(always)]
    unsafe fn store(&self, _: S, _: usize, _: Self::Item) {}

    #[inline(always)]
    unsafe fn store_head(&self, _: S, _: usize, _: usize, _: Self::Item) {}
}

/// A running sum per element, or none: what the stage loads, and where it stores the new sum.
pub trait Slot<S: Isa, R: Real> {
    /// The sums so far.
    type Old: Load<S, R, Item = Lanes<S, R>>;
    /// The new sums.
    type New: Store<S, R, Item = Lanes<S, R>>;

    /// Both ends.
    fn ends(self) -> (Self::Old, Self::New);
}

impl<'a, S: Isa, R: Real> Slot<S, R> for &'a mut [R] {
    type Old = Source<'a, R>;
    type New = Kept<'a, R>;

    #[inline(always)]
    fn ends(self) -> (Source<'a, R>, Kept<'a, R>) {
        let (source, sink) = Sink::from(self).read_too();
        (source, Kept(sink))
    }
}

impl<S: Isa, R: Real> Slot<S, R> for Discard {
    type Old = Splat<R>;
    type New = Discard;

    #[inline(always)]
    fn ends(self) -> (Splat<R>, Discard) {
        (Splat(R::default()), Discard)
    }
}

macro_rules! tuple {
    ($($name:ident $index:tt),*) => {
        impl<S: Isa, R: Real, $($name: Store<S, R>),*> Store<S, R> for ($($name,)*) {
            type Item = ($($name::Item,)*);

            #[inline(always)]
            fn extent(&self) -> Option<usize> {
                let known = None;
                $(let known = common(known, self.$index.extent());)*
                known
            }

            const LINE: usize = largest(&[$($name::LINE),*]);

            #[inline(always)]
            fn streaming(&self) -> Streaming {
                Streaming::Indifferent $(.and(self.$index.streaming()))*
            }

            #[inline(always)]
            unsafe fn store(&self, simd: S, index: usize, item: Self::Item) {
                // SAFETY: as above.
                unsafe { $(self.$index.store(simd, index, item.$index);)* }
            }

            #[inline(always)]
            unsafe fn store_all<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
                // SAFETY: as above.
                unsafe { $(self.$index.store_all::<K>(simd, index, array(#[inline(always)] |k| items[k].$index));)* }
            }

            #[inline(always)]
            unsafe fn stream<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
                // SAFETY: as above.
                unsafe { $(self.$index.stream::<K>(simd, index, array(#[inline(always)] |k| items[k].$index));)* }
            }

            #[inline(always)]
            unsafe fn store_head(&self, simd: S, index: usize, count: usize, item: Self::Item) {
                // SAFETY: as above.
                unsafe { $(self.$index.store_head(simd, index, count, item.$index);)* }
            }
        }
    };
}
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);

impl<S: Isa, R: Real, T: Store<S, R>, const N: usize> Store<S, R> for [T; N] {
    type Item = [T::Item; N];

    const LINE: usize = T::LINE;

    #[inline(always)]
    fn streaming(&self) -> Streaming {
        self.iter().fold(Streaming::Indifferent, |all, part| all.and(part.streaming()))
    }

    #[inline(always)]
    unsafe fn store_all<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
        for (i, part) in self.iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                part.store_all::<K>(
                    simd,
                    index,
                    array(
                        #[inline(always)]
                        |k| items[k][i],
                    ),
                )
            };
        }
    }

    #[inline(always)]
    unsafe fn stream<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
        for (i, part) in self.iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                part.stream::<K>(
                    simd,
                    index,
                    array(
                        #[inline(always)]
                        |k| items[k][i],
                    ),
                )
            };
        }
    }

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        common_of(self, T::extent)
    }

    #[inline(always)]
    unsafe fn store(&self, simd: S, index: usize, items: Self::Item) {
        for (part, item) in self.iter().zip(items) {
            // SAFETY: as above.
            unsafe { part.store(simd, index, item) };
        }
    }

    #[inline(always)]
    unsafe fn store_head(&self, simd: S, index: usize, count: usize, items: Self::Item) {
        for (part, item) in self.iter().zip(items) {
            // SAFETY: as above.
            unsafe { part.store_head(simd, index, count, item) };
        }
    }
}

const fn largest(values: &[usize]) -> usize {
    let (mut largest, mut i) = (0, 0);
    while i < values.len() {
        largest = if values[i] > largest { values[i] } else { largest };
        i += 1;
    }
    largest
}
