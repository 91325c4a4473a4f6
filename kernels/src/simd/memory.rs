//! Dense runs of elements, as the stages read and write them.
//!
//! A [`Source`] and a [`Sink`] may be the same memory (an in-place call), which Rust's slices cannot say: hence
//! pointers. A stage reads all it needs at an index before it writes there.

use std::marker::PhantomData;
use std::ops::Range;

use super::isa::{self, CACHE_LINE, Line};
use super::{Element, Isa, Lanes, Real};

/// A dense run of elements to read.
#[derive(Clone, Copy)]
pub struct Source<'a, E> {
    start: *const E,
    len: usize,
    _memory: PhantomData<&'a E>,
}

// SAFETY: whoever makes a source promises that no other thread writes to its memory: it is a shared slice then.
unsafe impl<E: Sync> Sync for Source<'_, E> {}

impl<'a, E: Element> Source<'a, E> {
    /// # Safety
    /// `len` elements are readable at `start` for `'a`, and written meanwhile by this thread only, through a [`Sink`].
    #[inline(always)]
    pub unsafe fn from_raw(start: *const E, len: usize) -> Self {
        Source { start, len, _memory: PhantomData }
    }

    /// Number of elements.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.len
    }

    /// One of them.
    ///
    /// # Panics
    /// If there is no such element.
    #[inline(always)]
    pub fn get(self, index: usize) -> E::Real {
        assert!(index < self.len);
        // SAFETY: just checked.
        unsafe { self.start.add(index).read() }.widen()
    }

    /// Asks for the cache line of an element that will be needed soon; there need not be one.
    #[inline(always)]
    pub fn prefetch(self, index: usize) {
        isa::prefetch(self.start.wrapping_add(index));
    }

    /// The elements before and from `at` on.
    ///
    /// # Panics
    /// If there are fewer than `at`.
    #[inline(always)]
    pub fn split_at(self, at: usize) -> (Self, Self) {
        assert!(at <= self.len);
        let rest = Source { start: self.start.wrapping_add(at), len: self.len - at, _memory: PhantomData };
        (Source { len: at, ..self }, rest)
    }

    /// The elements of a range.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        Source { start: self.start.wrapping_add(range.start), len: range.len(), _memory: PhantomData }
    }
}

impl<'a, E> From<&'a [E]> for Source<'a, E> {
    #[inline(always)]
    fn from(slice: &'a [E]) -> Self {
        Source { start: slice.as_ptr(), len: slice.len(), _memory: PhantomData }
    }
}

/// A dense run of elements to write.
pub struct Sink<'a, E> {
    start: *mut E,
    len: usize,
    /// Whether to write past the caches.
    streams: bool,
    _memory: PhantomData<&'a mut E>,
}

impl<'a, E: Element> Sink<'a, E> {
    /// # Safety
    /// `len` elements are writable at `start` for `'a`, and touched meanwhile by this thread only, through views.
    #[inline(always)]
    pub unsafe fn from_raw(start: *mut E, len: usize) -> Self {
        Sink { start, len, streams: false, _memory: PhantomData }
    }

    /// Whether to write past the caches: pays for what is too large to be found there again. Whoever streams calls
    /// [`fence`](super::fence) before other threads are told.
    #[inline(always)]
    pub fn streaming(self, streams: bool) -> Self {
        Sink { streams, ..self }
    }

    /// The elements before and from `at` on.
    ///
    /// # Panics
    /// If there are fewer than `at`.
    #[inline(always)]
    pub fn split_at(self, at: usize) -> (Self, Self) {
        assert!(at <= self.len);
        let rest = Sink { start: self.start.wrapping_add(at), len: self.len - at, ..self };
        (Sink { len: at, ..self }, rest)
    }

    /// What has been written so far, to be read again.
    #[inline(always)]
    pub fn source(&self) -> Source<'_, E> {
        Source { start: self.start, len: self.len, _memory: PhantomData }
    }

    /// The elements of a range.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn part(&mut self, range: Range<usize>) -> Sink<'_, E> {
        assert!(range.start <= range.end && range.end <= self.len);
        Sink { start: self.start.wrapping_add(range.start), len: range.len(), ..*self }
    }

    /// The same run, borrowed for a shorter time.
    #[inline(always)]
    pub fn reborrow(&mut self) -> Sink<'_, E> {
        Sink { ..*self }
    }
}

impl<'a, E> From<&'a mut [E]> for Sink<'a, E> {
    #[inline(always)]
    fn from(slice: &'a mut [E]) -> Self {
        Sink { start: slice.as_mut_ptr(), len: slice.len(), streams: false, _memory: PhantomData }
    }
}

/// Something a stage reads a vector of at every index: a run, a constant, or a tuple or an array of those.
pub trait Load<S: Isa, R: Real> {
    /// What it gives.
    type Item: Copy;

    /// Number of elements; `None` if any.
    fn extent(&self) -> Option<usize>;

    /// The vector at `index`.
    ///
    /// # Safety
    /// `index` plus the number of lanes is within the extent.
    unsafe fn load(&self, simd: S, index: usize) -> Self::Item;

    /// The first `count` lanes at `index`; the others hold anything.
    ///
    /// # Safety
    /// `index + count` is within the extent; `count` is less than the number of lanes.
    unsafe fn load_head(&self, simd: S, index: usize, count: usize) -> Self::Item;
}

/// Runs that will be read soon.
pub trait Fetch: Copy {
    /// Asks for the cache lines of what is at `index`.
    fn fetch(self, index: usize);
}

impl<E: Element> Fetch for Source<'_, E> {
    #[inline(always)]
    fn fetch(self, index: usize) {
        self.prefetch(index);
    }
}

impl<F: Fetch, const N: usize> Fetch for [F; N] {
    #[inline(always)]
    fn fetch(self, index: usize) {
        for run in self {
            run.fetch(index);
        }
    }
}

impl<F: Fetch> Fetch for Option<F> {
    #[inline(always)]
    fn fetch(self, index: usize) {
        if let Some(run) = self {
            run.fetch(index);
        }
    }
}

impl Fetch for () {
    #[inline(always)]
    fn fetch(self, _: usize) {}
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

/// A run that asks, as it is read, for what lies some elements further on: the next to be read after this run, so that
/// reading it overlaps with writing the results of this one.
#[derive(Clone, Copy)]
pub struct Ahead<'a, E> {
    source: Source<'a, E>,
    distance: usize,
}

impl<'a, E: Element> Source<'a, E> {
    /// The run, asking for what lies `distance` elements further on, if there is anything.
    #[inline(always)]
    pub fn ahead(self, distance: usize) -> Ahead<'a, E> {
        Ahead { source: self, distance }
    }
}

impl<S: Isa, E: Element> Load<S, E::Real> for Ahead<'_, E> {
    type Item = Lanes<S, E::Real>;

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        Some(self.source.len)
    }

    #[inline(always)]
    unsafe fn load(&self, simd: S, index: usize) -> Self::Item {
        self.source.prefetch(index + self.distance);
        // SAFETY: the caller's promise.
        unsafe { self.source.load(simd, index) }
    }

    #[inline(always)]
    unsafe fn load_head(&self, simd: S, index: usize, count: usize) -> Self::Item {
        // SAFETY: the caller's promise.
        unsafe { self.source.load_head(simd, index, count) }
    }
}

impl<S: Isa, R: Real, L: Load<S, R>, const N: usize> Load<S, R> for [L; N] {
    type Item = [L::Item; N];

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        common(self.each_ref().map(L::extent))
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

impl<S: Isa, E: Element> Load<S, E::Real> for Source<'_, E> {
    type Item = Lanes<S, E::Real>;

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        Some(self.len)
    }

    #[inline(always)]
    unsafe fn load(&self, simd: S, index: usize) -> Self::Item {
        // SAFETY: the caller's promise, and that of whoever made this source.
        unsafe { E::load(simd, self.start.add(index)) }
    }

    #[inline(always)]
    unsafe fn load_head(&self, simd: S, index: usize, count: usize) -> Self::Item {
        // SAFETY: the caller's promise; `load_head` gives a full vector to read.
        unsafe { E::load(simd, simd.load_head(self.start.add(index), count).as_ptr()) }
    }
}

impl<S: Isa, E: Element> Store<S, E::Real> for Sink<'_, E> {
    type Item = Lanes<S, E::Real>;

    #[inline(always)]
    fn extent(&self) -> Option<usize> {
        Some(self.len)
    }

    const LINE: usize =
        match CACHE_LINE / size_of::<E>() * size_of::<E::Real>() / size_of::<<E::Real as Real>::Vector<S>>() {
            // Not worth the code where vectors are short.
            line @ 1..=4 if S::FUSED => line,
            _ => 1,
        };

    #[inline(always)]
    fn streaming(&self) -> Streaming {
        let is_line = <Self as Store<S, E::Real>>::LINE * E::Real::lanes::<S>() * size_of::<E>() == CACHE_LINE;
        if self.streams && is_line {
            Streaming::From((self.start.addr().wrapping_neg() % CACHE_LINE) / size_of::<E>())
        } else {
            Streaming::Never
        }
    }

    #[inline(always)]
    unsafe fn store(&self, simd: S, index: usize, item: Self::Item) {
        // SAFETY: the caller's promise, and that of whoever made this sink.
        unsafe { E::store(simd, self.start.add(index), item) };
    }

    #[inline(always)]
    unsafe fn store_all<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
        // SAFETY: the caller's promise, and that of whoever made this sink.
        unsafe { E::store_all(simd, self.start.add(index), items) };
    }

    #[inline(always)]
    unsafe fn stream<const K: usize>(&self, simd: S, index: usize, items: [Self::Item; K]) {
        if K * E::Real::lanes::<S>() * size_of::<E>() != CACHE_LINE {
            // What it is written with is of another type.
            // SAFETY: the caller's promise.
            return unsafe { self.store_all(simd, index, items) };
        }
        let mut line = Line::default();
        // SAFETY: the caller's promise, and that of whoever made this sink; the items are a line.
        unsafe {
            E::store_all(simd, line.as_mut_ptr(), items);
            simd.stream(self.start.add(index), &line);
        }
    }

    #[inline(always)]
    unsafe fn store_head(&self, simd: S, index: usize, count: usize, item: Self::Item) {
        let mut lanes = Line::default();
        // SAFETY: the caller's promise; a line has room for a full vector.
        unsafe {
            E::store(simd, lanes.as_mut_ptr(), item);
            simd.store_head(self.start.add(index), count, &lanes);
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
        Some(self.0.len)
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
        let sink = Sink::from(self);
        (Source { start: sink.start, len: sink.len, _memory: PhantomData }, Kept(sink))
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
        impl<S: Isa, R: Real, $($name: Load<S, R>),*> Load<S, R> for ($($name,)*) {
            type Item = ($($name::Item,)*);

            #[inline(always)]
            fn extent(&self) -> Option<usize> {
                common([$(self.$index.extent()),*])
            }

            #[inline(always)]
            unsafe fn load(&self, simd: S, index: usize) -> Self::Item {
                // SAFETY: the caller's promise holds for every part, as `common` made sure.
                unsafe { ($(self.$index.load(simd, index),)*) }
            }

            #[inline(always)]
            unsafe fn load_head(&self, simd: S, index: usize, count: usize) -> Self::Item {
                // SAFETY: as above.
                unsafe { ($(self.$index.load_head(simd, index, count),)*) }
            }
        }

        impl<S: Isa, R: Real, $($name: Store<S, R>),*> Store<S, R> for ($($name,)*) {
            type Item = ($($name::Item,)*);

            #[inline(always)]
            fn extent(&self) -> Option<usize> {
                common([$(self.$index.extent()),*])
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
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);

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
        common::<N>(array(
            #[inline(always)]
            |i| self[i].extent(),
        ))
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

/// The one length that all parts have.
///
/// # Panics
/// If they differ: it is what makes the stages' unchecked loads sound.
#[inline(always)]
pub(super) fn common<const N: usize>(extents: [Option<usize>; N]) -> Option<usize> {
    let mut known = None;
    for extent in extents.into_iter().flatten() {
        assert!(known.is_none_or(|known| known == extent), "runs of different lengths");
        known = Some(extent);
    }
    known
}
