//! Operators whose statistics belong to channels: of a whole batch, or of one sample.
//!
//! The elements that share a statistic are a *set*; a set is made of *chunks*, the elements that share weight and
//! bias. For batch normalization a set is a channel of the batch and has one chunk; for group normalization it is a group
//! of channels of one sample, with a chunk per channel; instance normalization has groups of one channel.
//!
//! The data are used where they lie, in the two usual layouts: [`planar`] (the elements of one channel of one sample
//! are dense) and [`interleaved`] (the channels of one place are). What is done with them an operator says by
//! [`Stages`]. Other strides, and data that must be rescaled, are [`gathered`] set by set: see [`SetKernel`].
//! [`Forward`] and [`Backward`] are both, for normalization by a set's own moments.

mod backward;
pub mod batch_norm;
pub mod batch_norm_inference;
mod forward;
mod gathered;
pub mod group_norm;
pub mod instance_norm;
mod interleaved;
mod planar;
mod running;
mod spread;
mod stages;

use smallvec::{SmallVec, smallvec};

use super::arguments::{Param, ParamOutput, eps, expect_sizes, param, sizes};
use super::moments::Total;
use super::parallel;
use super::views::{Input, Output, Traffic};
use crate::abi::{Call, Refusal, Tensor};
use crate::simd::{self, Element, InstructionSet, Isa, Lanes, Real, Source};

pub use backward::Backward;
pub use forward::Forward;
use gathered::{Gathered, SetKernel};
pub use running::Running;
use stages::Stages;

/// `eps`, and weight and bias of each channel; those that are absent do nothing.
pub struct Parameters<'a, R: Real> {
    eps: f64,
    weight: Param<'a, R>,
    bias: Param<'a, R>,
}

impl<R: Real> Parameters<'_, R> {
    /// Weight and bias of `count` channels.
    #[inline(always)]
    fn of(&self, first: usize, count: usize) -> [Source<'_, R>; 2] {
        // Not `map`, which may not be inlined: then nobody knows how many there are.
        let (weight, bias) = (self.weight.source().split_at(first).1, self.bias.source().split_at(first).1);
        [weight.split_at(count).0, bias.split_at(count).0]
    }

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
}

/// The sets of a call, and the parameters.
pub struct Sets<'a, R: Real> {
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
        let weight = param::<D>(call, "weight", per_channel, 1.0)?.into_wide();
        Ok(Sets {
            call,
            shape: x.shape,
            parameters: Parameters {
                eps: eps(call)?,
                weight,
                // x + (-0) is x, for every x.
                bias: param::<D>(call, "bias", per_channel, -0.0)?.into_wide(),
            },
            batch,
            channels,
            spatial: spatial.iter().product(),
            division,
        })
    }

    fn shape(&self) -> Shape {
        let &Sets { batch, channels, spatial, division, .. } = self;
        Shape { batch, channels, spatial, division, threads: self.call.threads() }
    }

    /// A data input.
    ///
    /// # Errors
    /// If it is missing or not like `x`.
    pub fn input<D: Element>(&self, name: &str) -> Result<Data<Input<'a, D>>, Refusal> {
        let tensor = self.call.required_input(name)?;
        self.view(name, tensor, Input::new)
    }

    /// A data output.
    ///
    /// # Errors
    /// If it is missing or not like `x`.
    pub fn output<D: Element>(&self, name: &str) -> Result<Data<Output<'a, D>>, Refusal> {
        let tensor = self.call.required_output(name)?;
        self.view(name, tensor, Output::new)
    }

    fn view<V>(
        &self,
        name: &str,
        tensor: Tensor<'a>,
        make: impl FnOnce(&str, &Tensor<'a>, SmallVec<[(i64, i64); 6]>, usize) -> Result<V, Refusal>,
    ) -> Result<Data<V>, Refusal> {
        expect_sizes(name, &tensor, self.shape)?;
        let axes: SmallVec<[(i64, i64); 6]> = tensor.axes().collect();
        let (batch, (channels, step), space) = (axes[0], axes[1], &axes[2..]);
        let (outer, inner) = match self.division {
            Division::Batch => (smallvec![(channels, step)], batch),
            Division::Groups(groups) => {
                // Channels become two axes: groups, and channels of a group.
                let members = channels / groups as i64;
                (smallvec![batch, (groups as i64, step.saturating_mul(members))], (members, step))
            }
        };
        let mut all: SmallVec<[(i64, i64); 6]> = outer;
        let outer = all.len();
        all.push(inner);
        all.extend_from_slice(space);
        let rows = make(name, &tensor, all, outer)?;
        Ok(Data { rows, steps: Steps::of(&tensor) })
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

/// A tensor: its sets as rows, and how it lies.
pub struct Data<V> {
    rows: V,
    /// `None` if places cannot be numbered along one axis.
    steps: Option<Steps>,
}

/// Elements from a sample to the next, from a channel to the next, and from a place in space to the next.
#[derive(Clone, Copy, Default)]
struct Steps {
    sample: usize,
    channel: usize,
    place: usize,
}

impl Steps {
    /// Those of a tensor whose spatial axes are steps of one; those over axes of size 1 are as if it were dense.
    fn of(tensor: &Tensor<'_>) -> Option<Self> {
        let (&[batch, channels, ref space @ ..], &[sample, channel, ref strides @ ..]) = (tensor.shape, tensor.strides)
        else {
            return None;
        };
        let mut places = (1, 1);
        for (&size, &stride) in space.iter().zip(strides).rev().filter(|&(&size, _)| size != 1) {
            match places {
                (1, _) => places = (size, stride),
                (before, step) if stride == before * step => places.0 *= size,
                _ => return None,
            }
        }
        let (count, place) = places;
        let place = if count == 1 { sample } else { place };
        let step = |size, step: i64, otherwise: i64| usize::try_from(if size == 1 { otherwise } else { step }).ok();
        let channel = step(channels, channel, if place == 1 { count } else { 1 })?;
        Some(Steps {
            sample: step(batch, sample, count.checked_mul(place)?)?,
            channel,
            place: usize::try_from(place).ok()?,
        })
    }
}

/// Sizes of a call's data.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    channels: usize,
    spatial: usize,
    division: Division,
    threads: usize,
}

impl Shape {
    /// Channels of a set.
    fn members(&self) -> usize {
        match self.division {
            Division::Batch => 1,
            Division::Groups(groups) => self.channels / groups,
        }
    }

    /// Number of sets, of chunks in each, and of elements in each chunk.
    fn extents(&self) -> [usize; 3] {
        match self.division {
            Division::Batch => [self.channels, 1, self.batch * self.spatial],
            Division::Groups(groups) => [self.batch * groups, self.members(), self.spatial],
        }
    }
}

/// What the layouts have in common.
struct Job<'a, D: Element, O, const N: usize> {
    shape: Shape,
    inputs: &'a [Data<Input<'a, D>>; N],
    output: &'a Data<Output<'a, D>>,
    kernel: &'a O,
    instructions: InstructionSet,
    /// Whether to write past the caches.
    streams: bool,
    /// Whether inputs come from memory.
    is_from_memory: bool,
}

impl<D: Element, O: SetKernel<D, N>, const N: usize> Job<'_, D, O, N> {
    /// The steps of all tensors.
    fn steps(&self) -> Option<([Steps; N], Steps)> {
        let mut inputs = [Steps::default(); N];
        for (to, input) in inputs.iter_mut().zip(self.inputs) {
            *to = input.steps?;
        }
        Some((inputs, self.output.steps?))
    }

    /// The slow path for some sets.
    #[cold]
    fn gather(&self, sets: std::ops::Range<usize>, record: &mut [[f64; 2]]) {
        let &Job { inputs, output, kernel, streams, .. } = self;
        let channels = self.shape.channels;
        let chunks = self.shape.members();
        simd::run(self.instructions, Gathered { inputs, output, kernel, streams, channels, sets, chunks, record });
    }
}

/// Calls `kernel` for every set; answers what it recorded, chunk by chunk, or channel by channel if the sums of
/// several samples could be taken together.
pub fn run<D, O, const N: usize, const K: usize, const P: usize>(
    sets: &Sets<'_, D::Real>,
    inputs: &[Data<Input<'_, D>>; N],
    output: &Data<Output<'_, D>>,
    kernel: &O,
) -> Vec<[f64; 2]>
where
    D: Element,
    O: SetKernel<D, N> + Stages<D::Real, N, K, P>,
{
    let shape = sets.shape();
    let [count, chunks, size] = shape.extents();
    let recorded = if O::RECORDS { chunks } else { 0 };
    let mut record = vec![[0.0; 2]; count * recorded];
    if size == 0 || chunks == 0 || count == 0 {
        return record;
    }
    let Traffic { streams: [streams], is_from_memory } =
        Traffic::new(inputs.each_ref().map(|input| &input.rows), [&output.rows]);
    let job = Job { shape, inputs, output, kernel, instructions: InstructionSet::current(), streams, is_from_memory };
    if let (true, Some((from, to))) = (kernel.fits(), job.steps()) {
        let all = || from.iter().chain([&to]);
        let places = sets.spatial;
        if places > 1 && all().all(|steps| steps.place == 1) {
            planar::run(&job, from, to, &mut record);
            return record;
        }
        if let Some(rows) = interleaved::Rows::new(&job, from, to) {
            rows.run(&mut record);
            return record;
        }
    }
    let mut rest = &mut record[..];
    let mut parts = parallel::Parts::new();
    for range in parallel::divide(shape.threads, count, chunks * size) {
        let (record, after) = rest.split_at_mut(range.len() * recorded);
        rest = after;
        parts.push((range, record));
    }
    parallel::each(parts, |(range, record)| job.gather(range, record));
    record
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
    let totals;
    let record = if record.len() == sets.channels {
        record
    } else {
        totals = add_up(record, sets.channels);
        &totals[..]
    };
    for (which, output) in params.iter().enumerate() {
        if let Some(output) = output {
            output.write(record.iter().map(|parts| parts[which]))?;
        }
    }
    Ok(())
}

/// Adds up what was recorded of the chunks of each channel, as [`Total`] does: blocks in their order, then those.
fn add_up(record: &[[f64; 2]], channels: usize) -> Vec<[f64; 2]> {
    let add = |totals: &mut [[f64; 2]], parts: &[[f64; 2]]| {
        for ([one, two], [more, and]) in totals.iter_mut().zip(parts) {
            (*one, *two) = (*one + more, *two + and);
        }
    };
    let mut totals = vec![[0.0; 2]; channels];
    let mut block = totals.clone();
    for samples in record.chunks((Total::BLOCK * channels).max(1)) {
        block.fill([0.0; 2]);
        samples.chunks_exact(channels.max(1)).for_each(|sample| add(&mut block, sample));
        add(&mut totals, &block);
    }
    totals
}
