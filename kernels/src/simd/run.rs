//! Dense runs of elements, as the stages read and write them.
//!
//! A [`Source`] and a [`Sink`] may be the same memory (an in-place call), which Rust's slices cannot say: hence
//! pointers. A stage reads all it needs at an index before it writes there. What else can be read or written in their
//! place is in [`load`](super::load) and [`store`](super::store).

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

use super::isa::{self, CACHE_LINE, Line};
use super::load::Load;
use super::store::{Store, Streaming};
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

    /// The first of them.
    #[inline(always)]
    pub(super) fn as_ptr(self) -> *const E {
        self.start
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

    /// The run, to be asked for before it is read; `waits` says whether it comes from memory.
    #[inline(always)]
    pub fn soon(self, waits: bool) -> Soon<E> {
        Soon { run: self.ahead(0), waits }
    }

    /// What lies so many elements further on than this run does; there need not be anything.
    #[inline(always)]
    pub fn ahead(self, elements: usize) -> Ahead<E> {
        Ahead(self.start.wrapping_add(elements))
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

/// Elements that are read after what is read now: to be asked for, not to be read. As fast as one can: for stages that take
/// longer over a line than memory does.
#[derive(Clone, Copy)]
pub struct Ahead<E>(*const E);

impl<E: Element> Ahead<E> {
    /// Asks for the cache line of one of them.
    #[inline(always)]
    pub(super) fn fetch(self, index: usize) {
        isa::prefetch(self.0.wrapping_add(index));
    }
}

/// A run that is read after what is read now.
#[derive(Clone, Copy)]
pub struct Soon<E> {
    pub(super) run: Ahead<E>,
    /// Whether it comes from memory: it is no use to ask for it faster than that gives.
    pub(super) waits: bool,
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
    /// Nothing to write.
    pub const NONE: Self = Sink { start: ptr::dangling_mut(), len: 0, streams: false, _memory: PhantomData };

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

    /// Number of elements.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What has been written so far, to be read again.
    #[inline(always)]
    pub fn source(&self) -> Source<'_, E> {
        Source { start: self.start, len: self.len, _memory: PhantomData }
    }

    /// The run, and what is there before it is written.
    #[inline(always)]
    pub(super) fn read_too(self) -> (Source<'a, E>, Sink<'a, E>) {
        (Source { start: self.start, len: self.len, _memory: PhantomData }, self)
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
    unsafe fn load_all<const K: usize>(&self, simd: S, index: usize) -> [Self::Item; K] {
        // SAFETY: the caller's promise, and that of whoever made this source.
        unsafe { E::load_all(simd, self.start.add(index)) }
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
