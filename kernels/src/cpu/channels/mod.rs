//! Operators whose statistics belong to channels: of a whole batch, or of one sample.
//!
//! The elements that share a statistic are a *set*; a set is made of *chunks*, the elements that share weight and
//! bias. For batch normalization a set is a channel of the batch and has one chunk; for group normalization it is a group
//! of channels of one sample, with a chunk per channel; instance normalization has groups of one channel.
//!
//! A set is taken as one run of elements: where it lies if it is dense, else gathered into a buffer, so that memory is
//! read once however many passes the statistics take. [`Forward`] and [`Backward`] are what is done with a set.

pub mod batch_norm;
pub mod batch_norm_inference;
pub mod group_norm;
pub mod instance_norm;
mod running;

use super::arguments::{Param, ParamOutput, eps, expect_sizes, param, sizes};
use super::moments::{Attempt, Moments, Scaling, Total, attempt};
use super::parallel;
use super::views::{Input, Output, streams, writers};
use crate::abi::{Call, Refusal, Tensor};
use crate::simd::{self, Element, InstructionSet, Isa, Lanes, Real, Sink, Source, Task, map, sum};

pub use running::Running;

/// `eps`, and weight and bias of each channel; those that are absent do nothing.
pub struct Parameters<'a, R> {
    eps: f64,
    weight: Param<'a, R>,
    bias: Param<'a, R>,
}

impl<R: Real> Parameters<'_, R> {
    #[inline(always)]
    fn weight<S: Isa>(&self, simd: S, channel: usize) -> Lanes<S, R> {
        Lanes::splat(simd, self.weight.source().get(channel))
    }

    #[inline(always)]
    fn bias<S: Isa>(&self, simd: S, channel: usize) -> Lanes<S, R> {
        Lanes::splat(simd, self.bias.source().get(channel))
    }
}

/// How elements are divided into sets.
#[derive(Clone, Copy)]
pub enum Division {
    /// A set is a channel of the whole batch: one chunk.
    Batch,
    /// A set is one of this many groups of channels of one sample: a chunk per channel.
    Groups(usize),
    /// A set is all channels of one place of one sample: a chunk per channel, of one element. For maps only.
    Places,
}

/// The sets of a call, and the parameters.
pub struct Sets<'a, R> {
    call: &'a Call<'a>,
    shape: &'a [i64],
    /// What the sets are normalized with.
    pub parameters: Parameters<'a, R>,
    /// Samples.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Elements of one channel of one sample.
    pub spatial: usize,
    division: Division,
}

impl<'a, R: Real> Sets<'a, R> {
    /// The sets of `x`.
    ///
    /// # Errors
    /// If `x`, `eps` or a parameter is not as it should be; if channels cannot be divided into groups.
    pub fn new<D: Element<Real = R>>(
        call: &'a Call<'a>,
        division: impl FnOnce(usize) -> Division,
    ) -> Result<Self, Refusal> {
        let x = call.required_input("x")?;
        let sizes = sizes("x", &x)?;
        let &[batch, channels, ref spatial @ ..] = &sizes[..] else {
            return Err(Refusal::Failed(format!("`x` has {} axes; it needs a batch and channels", sizes.len())));
        };
        let division = match division(channels) {
            // Without channels there is nothing to divide.
            Division::Groups(_) if channels == 0 => Division::Groups(1),
            Division::Groups(groups) if groups == 0 || channels % groups != 0 => {
                return Err(Refusal::Failed(format!("{channels} channels cannot be divided into {groups} groups")));
            }
            division => division,
        };
        let per_channel = &x.shape[1..2];
        Ok(Sets {
            call,
            shape: x.shape,
            parameters: Parameters {
                eps: eps(call)?,
                weight: param::<D>(call, "weight", per_channel, 1.0)?,
                // x + (-0) is x, for every x.
                bias: param::<D>(call, "bias", per_channel, -0.0)?,
            },
            batch,
            channels,
            spatial: spatial.iter().product(),
            division,
        })
    }

    /// Number of sets, of chunks in each, and of elements in each chunk.
    fn extents(&self) -> [usize; 3] {
        match self.division {
            Division::Batch => [self.channels, 1, self.batch * self.spatial],
            Division::Groups(groups) => [self.batch * groups, self.channels / groups, self.spatial],
            Division::Places => [self.batch * self.spatial, self.channels, 1],
        }
    }

    /// A data input.
    ///
    /// # Errors
    /// If it is missing or not like `x`.
    pub fn input<D: Element>(&self, name: &str) -> Result<Input<'a, D>, Refusal> {
        let tensor = self.call.required_input(name)?;
        self.view(name, tensor, Input::new)
    }

    /// A data output.
    ///
    /// # Errors
    /// If it is missing or not like `x`.
    pub fn output<D: Element>(&self, name: &str) -> Result<Output<'a, D>, Refusal> {
        let tensor = self.call.required_output(name)?;
        self.view(name, tensor, Output::new)
    }

    fn view<V>(
        &self,
        name: &str,
        tensor: Tensor<'a>,
        make: impl FnOnce(&str, &Tensor<'a>, &[i64], &[i64], &[usize], &[usize]) -> Result<V, Refusal>,
    ) -> Result<V, Refusal> {
        expect_sizes(name, &tensor, self.shape)?;
        // Channels become two axes: groups, and channels of a group.
        let split = |axes: &[i64], outer: i64, inner: i64| [&axes[..1], &[outer, inner], &axes[2..]].concat();
        let groups = if let Division::Groups(groups) = self.division { groups as i64 } else { 1 };
        let members = self.shape[1] / groups;
        let shape = split(tensor.shape, groups, members);
        let strides = split(tensor.strides, tensor.strides[1].saturating_mul(members), tensor.strides[1]);
        let space: Vec<usize> = (3..shape.len()).collect();
        let (outer, inner) = match self.division {
            Division::Batch => (vec![2], [&[0], &space[..]].concat()),
            Division::Groups(_) => (vec![0, 1], [&[2], &space[..]].concat()),
            Division::Places => ([&[0], &space[..]].concat(), vec![2]),
        };
        make(name, &tensor, &shape, &strides, &outer, &inner)
    }

    /// The gradients of weight and bias that are asked for.
    ///
    /// # Errors
    /// If one's sizes do not fit.
    pub fn param_outputs(&self) -> Result<[Option<ParamOutput<'a>>; 2], Refusal> {
        let sizes = &self.shape[1..2];
        Ok([ParamOutput::find(self.call, "dweight", sizes)?, ParamOutput::find(self.call, "dbias", sizes)?])
    }
}

/// What an operator does with one set.
pub trait SetKernel<D: Element, const N: usize, const M: usize>: Sync {
    /// Whether it records anything.
    const RECORDS: bool = true;

    /// Computes the outputs of a set, at least one element long. `room` is for the slow path; `channels` are those of the
    /// chunks; `record` keeps two numbers per chunk.
    fn set<S: Isa>(
        &self,
        simd: S,
        room: &mut Vec<D::Real>,
        channels: std::ops::Range<usize>,
        inputs: [Source<'_, D>; N],
        outputs: [Sink<'_, D>; M],
        record: &mut [[f64; 2]],
    );
}

/// Calls `kernel` for every set; answers what it recorded, chunk by chunk.
pub fn run<D, K, const N: usize, const M: usize>(
    sets: &Sets<'_, D::Real>,
    inputs: &[Input<'_, D>; N],
    outputs: &[Output<'_, D>; M],
    kernel: &K,
) -> Vec<[f64; 2]>
where
    D: Element,
    K: SetKernel<D, N, M>,
{
    let [count, chunks, size] = sets.extents();
    let recorded = if K::RECORDS { chunks } else { 0 };
    let mut record = vec![[0.0; 2]; count * recorded];
    if size > 0 && chunks > 0 {
        let set = InstructionSet::current();
        let mut rest = &mut record[..];
        let streams = streams(inputs, outputs);
        let mut parts = parallel::Parts::new();
        for range in parallel::divide(sets.call.threads(), count, chunks * size) {
            let (record, after) = rest.split_at_mut(range.len() * recorded);
            rest = after;
            parts.push(Part { inputs, outputs, kernel, streams, channels: sets.channels, sets: range, chunks, record });
        }
        parallel::each(parts, |part| simd::run(set, part));
    }
    record
}

/// The sets of one thread.
struct Part<'a, D, K, const N: usize, const M: usize> {
    inputs: &'a [Input<'a, D>; N],
    outputs: &'a [Output<'a, D>; M],
    kernel: &'a K,
    streams: [bool; M],
    channels: usize,
    sets: std::ops::Range<usize>,
    chunks: usize,
    record: &'a mut [[f64; 2]],
}

impl<D: Element, K: SetKernel<D, N, M>, const N: usize, const M: usize> Task for Part<'_, D, K, N, M> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let mut room = Vec::new();
        let mut readers = self.inputs.each_ref().map(|input| input.reader(self.sets.end));
        let mut writers = writers(self.outputs, self.sets.end, self.streams);
        let mut records = self.record.chunks_exact_mut(self.chunks);
        for set in self.sets {
            let record = records.next().unwrap_or_default();
            // Chunks follow one another channel by channel, over and over.
            let first = set * self.chunks % self.channels;
            let channels = first..first + self.chunks;
            let inputs = readers.each_mut().map(|reader| reader.row(set));
            let outputs = writers.each_mut().map(|writer| writer.row(set));
            self.kernel.set(simd, &mut room, channels, inputs, outputs, record);
            writers.iter_mut().for_each(|writer| writer.commit(set));
        }
    }
}

/// Writes the gradients of weight and bias: chunks of one channel are added up in their order.
///
/// # Errors
/// If they cannot be written.
pub fn write_params<R: Real>(
    sets: &Sets<'_, R>,
    params: [Option<ParamOutput<'_>>; 2],
    record: &[[f64; 2]],
) -> Result<(), Refusal> {
    for (which, output) in params.iter().enumerate() {
        let Some(output) = output else { continue };
        let mut totals = vec![Total::default(); sets.channels];
        for sample in record.chunks_exact(sets.channels.max(1)) {
            totals.iter_mut().zip(sample).for_each(|(total, parts)| total.add(parts[which]));
        }
        output.write(totals.into_iter().map(Total::get))?;
    }
    Ok(())
}

/// Normalization by a set's own moments, forward: records mean and biased variance of the set with its first chunk.
pub struct Forward<'a, R>(pub &'a Parameters<'a, R>);

impl<D: Element> SetKernel<D, 1, 1> for Forward<'_, D::Real> {
    #[inline(always)]
    fn set<S: Isa>(
        &self,
        simd: S,
        room: &mut Vec<D::Real>,
        channels: std::ops::Range<usize>,
        [x]: [Source<'_, D>; 1],
        [y]: [Sink<'_, D>; 1],
        record: &mut [[f64; 2]],
    ) {
        attempt(simd, x, self.0.eps, room, ForwardSet { parameters: self.0, channels, y, record });
    }
}

struct ForwardSet<'a, D: Element> {
    parameters: &'a Parameters<'a, D::Real>,
    channels: std::ops::Range<usize>,
    y: Sink<'a, D>,
    record: &'a mut [[f64; 2]],
}

impl<D: Element> Attempt<D::Real> for ForwardSet<'_, D> {
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = D::Real>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let moments = Moments::new(simd, x, scaling.eps);
        if !scaling.accepts::<D::Real>(moments.variance) {
            return false;
        }
        self.record[0] = [moments.mean / scaling.scale, moments.variance / scaling.scale / scaling.scale];
        let size = x.len() / self.channels.len();
        let normalized = moments.normalized(simd);
        let (mut x, mut y) = (x, self.y.reborrow());
        for channel in self.channels.clone() {
            let (x_chunk, x_rest) = x.split_at(size);
            let (y_chunk, y_rest) = y.split_at(size);
            let (weight, bias) = (self.parameters.weight(simd, channel), self.parameters.bias(simd, channel));
            map(simd, x_chunk, y_chunk, |x| normalized(x).mul_add(weight, bias));
            (x, y) = (x_rest, y_rest);
        }
        true
    }
}

/// Normalization by a set's own moments, backward: records each chunk's share of `dweight` and `dbias`.
pub struct Backward<'a, R>(pub &'a Parameters<'a, R>);

impl<D: Element> SetKernel<D, 2, 1> for Backward<'_, D::Real> {
    #[inline(always)]
    fn set<S: Isa>(
        &self,
        simd: S,
        room: &mut Vec<D::Real>,
        channels: std::ops::Range<usize>,
        [dy, x]: [Source<'_, D>; 2],
        [dx]: [Sink<'_, D>; 1],
        record: &mut [[f64; 2]],
    ) {
        attempt(simd, x, self.0.eps, room, BackwardSet { parameters: self.0, channels, dy, dx, record });
    }
}

struct BackwardSet<'a, D: Element> {
    parameters: &'a Parameters<'a, D::Real>,
    channels: std::ops::Range<usize>,
    dy: Source<'a, D>,
    dx: Sink<'a, D>,
    record: &'a mut [[f64; 2]],
}

impl<R: Real, D: Element<Real = R>> Attempt<R> for BackwardSet<'_, D> {
    /// `dx = (g - mean(g) - x_hat * mean(g * x_hat)) * rstd` with `g = dy * weight`.
    #[inline(always)]
    fn attempt<S: Isa, E: Element<Real = R>>(&mut self, simd: S, x: Source<'_, E>, scaling: Scaling) -> bool {
        let moments = Moments::new(simd, x, scaling.eps);
        if !scaling.accepts::<R>(moments.variance) {
            return false;
        }
        let n = x.len() as f64;
        let size = x.len() / self.channels.len();
        let x_hat = moments.normalized(simd);
        let (mut a, mut b) = (Total::default(), Total::default());
        let (mut x_left, mut dy_left) = (x, self.dy);
        for (channel, record) in self.channels.clone().zip(self.record.iter_mut()) {
            let (x_chunk, x_rest) = x_left.split_at(size);
            let (dy_chunk, dy_rest) = dy_left.split_at(size);
            let [dbias, dweight] = sum(simd, (dy_chunk, x_chunk), |(dy, x), [a, b]| [a + dy, dy.mul_add(x_hat(x), b)]);
            *record = [dweight, dbias];
            let weight = self.parameters.weight.source().get(channel).to_f64();
            a.add(weight * dbias);
            b.add(weight * dweight);
            (x_left, dy_left) = (x_rest, dy_rest);
        }
        let splat = |value| Lanes::splat(simd, R::from_f64(value));
        let (a, b, scale) = (splat(a.get() / n), splat(b.get() / n), splat(moments.rstd.to_f64() * scaling.scale));
        let (mut x, mut dy, mut dx) = (x, self.dy, self.dx.reborrow());
        for channel in self.channels.clone() {
            let ((x_chunk, x_rest), (dy_chunk, dy_rest)) = (x.split_at(size), dy.split_at(size));
            let (dx_chunk, dx_rest) = dx.split_at(size);
            let weight = self.parameters.weight(simd, channel);
            map(simd, (dy_chunk, x_chunk), dx_chunk, |(dy, x)| ((dy * weight - a) - x_hat(x) * b) * scale);
            (x, dy, dx) = (x_rest, dy_rest, dx_rest);
        }
        true
    }
}
