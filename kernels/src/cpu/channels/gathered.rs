//! Sets in any order in memory: each is gathered into one run of elements, unless it is one already, and scattered
//! back after; so it can be rescaled, too. The slow path, for strides of no usual layout and for data at the ends of
//! the range of their type.

use std::ops::Range;

use super::Data;
use crate::cpu::views::{Input, Output};
use crate::simd::{Element, Isa, Sink, Source, Task};

/// What an operator does with one set.
pub trait SetKernel<D: Element, const N: usize>: Sync {
    /// Whether it records anything.
    const RECORDS: bool = true;

    /// Computes the output of a set, at least one element long. `room` is for the slow path; `channels` are those of the
    /// chunks; `record` keeps two numbers per chunk.
    fn set<S: Isa>(
        &self,
        simd: S,
        room: &mut Vec<D::Real>,
        channels: Range<usize>,
        inputs: [Source<'_, D>; N],
        output: Sink<'_, D>,
        record: &mut [[f64; 2]],
    );
}

/// Some of the sets.
pub struct Gathered<'a, D, K, const N: usize> {
    pub inputs: &'a [Data<Input<'a, D>>; N],
    pub output: &'a Data<Output<'a, D>>,
    pub kernel: &'a K,
    /// Whether to write past the caches.
    pub streams: bool,
    /// Channels of a sample.
    pub channels: usize,
    /// Those to be done.
    pub sets: Range<usize>,
    /// Chunks of a set.
    pub chunks: usize,
    /// That of these sets.
    pub record: &'a mut [[f64; 2]],
}

impl<D: Element, K: SetKernel<D, N>, const N: usize> Task for Gathered<'_, D, K, N> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let mut room = Vec::new();
        let mut readers = self.inputs.each_ref().map(|input| input.rows.reader(self.sets.end));
        let mut writer = self.output.rows.writer(self.sets.end, self.streams);
        let mut records = self.record.chunks_exact_mut(self.chunks);
        for set in self.sets {
            let record = records.next().unwrap_or_default();
            // Chunks follow one another channel by channel, over and over.
            let first = set * self.chunks % self.channels;
            let channels = first..first + self.chunks;
            let inputs = readers.each_mut().map(|reader| reader.row(set));
            self.kernel.set(simd, &mut room, channels, inputs, writer.row(set), record);
            writer.commit(set);
        }
    }
}
