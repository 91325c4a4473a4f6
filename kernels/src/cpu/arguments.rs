//! What a call brings, checked.

use std::sync::OnceLock;

use half::{bf16, f16};
use smallvec::SmallVec;

use super::views::{Input, Output, Writer};
use crate::abi::{Call, Dtype, Refusal, Tensor};
use crate::simd::{self, Element, InstructionSet, Isa, Sink, Source, Task, map};

/// A parameter beside data of type `D`.
pub enum Param<'a, D: Element> {
    /// In the working precision, where it lies.
    Lying(Source<'a, D::Real>),
    /// In half precision, where it lies, and converted once somebody asks.
    Stored(Source<'a, D>, OnceLock<Vec<D::Real>>),
    /// Converted, or made dense.
    Owned(Vec<D::Real>),
}

impl<'a, D: Element> Param<'a, D> {
    /// A tensor in the type of the data.
    fn new(name: &str, tensor: &Tensor<'a>) -> Result<Self, Refusal> {
        match Input::dense(tensor) {
            Some(source) => Ok(Param::Stored(source, OnceLock::new())),
            None => Ok(Param::Owned(values::<D>(name, tensor)?)),
        }
    }

    /// A tensor in the working precision.
    fn wide(name: &str, tensor: &Tensor<'a>) -> Result<Self, Refusal> {
        match Input::dense(tensor) {
            Some(source) => Ok(Param::Lying(source)),
            None => Ok(Param::Owned(values::<D::Real>(name, tensor)?)),
        }
    }

    /// Its values.
    #[inline(always)]
    pub fn source(&self) -> Source<'_, D::Real> {
        match self {
            Param::Lying(source) => *source,
            Param::Stored(stored, wide) => Source::from(&wide.get_or_init(|| widened(*stored))[..]),
            Param::Owned(values) => Source::from(&values[..]),
        }
    }

    /// Its values in half precision, if that is how they lie.
    pub fn stored(&self) -> Option<Source<'a, D>> {
        if let Param::Stored(stored, _) = self { Some(*stored) } else { None }
    }

    /// The same in the working precision.
    pub fn into_wide(self) -> Param<'a, D::Real> {
        match self {
            Param::Lying(source) => Param::Lying(source),
            Param::Stored(stored, _) => Param::Owned(widened(stored)),
            Param::Owned(values) => Param::Owned(values),
        }
    }

    /// Its values, changed.
    pub fn map(self, change: impl Fn(D::Real) -> D::Real) -> Param<'static, D> {
        let source = self.source();
        Param::Owned((0..source.len()).map(|i| change(source.get(i))).collect())
    }
}

/// Runs a function for the type of a call's data.
macro_rules! for_data_type {
    ($call:expr, $function:ident $(, $argument:expr)*) => {
        match $crate::cpu::arguments::data_type($call)? {
            $crate::abi::Dtype::F32 => $function::<f32>($call $(, $argument)*),
            $crate::abi::Dtype::Bf16 => $function::<half::bf16>($call $(, $argument)*),
            $crate::abi::Dtype::F64 => $function::<f64>($call $(, $argument)*),
            $crate::abi::Dtype::F16 => $function::<half::f16>($call $(, $argument)*),
        }
    };
}
pub(crate) use for_data_type;

/// The type of a call's data.
///
/// # Errors
/// If there is no `x`.
pub fn data_type(call: &Call<'_>) -> Result<Dtype, Refusal> {
    Ok(call.required_input("x")?.dtype)
}

/// `eps`.
///
/// # Errors
/// If it is missing, negative or NaN.
pub fn eps(call: &Call<'_>) -> Result<f64, Refusal> {
    let eps = call.real("eps")?;
    if eps >= 0.0 { Ok(eps) } else { Err(Refusal::Failed(format!("eps is {eps}; it must not be negative"))) }
}

/// The sizes of a tensor.
///
/// # Errors
/// If one is negative.
pub fn sizes(name: &str, tensor: &Tensor<'_>) -> Result<SmallVec<[usize; 6]>, Refusal> {
    tensor.shape.iter().map(|&size| size_of_axis(name, size)).collect()
}

/// How many elements axes of these sizes have; more than there can be are refused where a tensor is viewed.
///
/// # Errors
/// If one is negative.
pub fn elements(name: &str, sizes: &[i64]) -> Result<usize, Refusal> {
    sizes.iter().try_fold(1, |count: usize, &size| Ok(count.wrapping_mul(size_of_axis(name, size)?)))
}

fn size_of_axis(name: &str, size: i64) -> Result<usize, Refusal> {
    usize::try_from(size).map_err(|_| Refusal::Failed(format!("`{name}` has a negative size, {size}")))
}

/// Checks the sizes of a tensor.
///
/// # Errors
/// If they are not `expected`.
pub fn expect_sizes(name: &str, tensor: &Tensor<'_>, expected: &[i64]) -> Result<(), Refusal> {
    if tensor.shape == expected {
        return Ok(());
    }
    Err(Refusal::Failed(format!("`{name}` has sizes {:?}, expected {expected:?}", tensor.shape)))
}

/// A parameter of the given sizes; `absent` everywhere if it is absent.
///
/// # Errors
/// If its sizes are others, or its type is neither that of the data nor f32 beside half-precision data.
pub fn param<'a, D: Element>(call: &Call<'a>, name: &str, sizes: &[i64], absent: f64) -> Result<Param<'a, D>, Refusal> {
    let Some(tensor) = call.input(name) else {
        let count = sizes.iter().map(|&size| size as usize).product();
        return Ok(Param::Owned(vec![Element::from_f64(absent); count]));
    };
    expect_sizes(name, &tensor, sizes)?;
    check_param_type::<D>(name, &tensor)?;
    if tensor.dtype == D::Real::DTYPE {
        return Param::wide(name, &tensor);
    }
    Param::new(name, &tensor)
}

/// A running statistic: one value per channel, in the type that statistics of `D` are kept in.
///
/// # Errors
/// If its size or type is another.
pub fn running<'a, D: Element>(name: &str, tensor: &Tensor<'a>, channels: i64) -> Result<Param<'a, D::Real>, Refusal> {
    expect_sizes(name, tensor, &[channels])?;
    if tensor.dtype != D::DTYPE.statistics() {
        let expected = D::DTYPE.statistics();
        return Err(Refusal::Failed(format!("`{name}` has dtype {}, expected {expected}", tensor.dtype)));
    }
    Param::wide(name, tensor)
}

/// The values of a tensor in the working precision.
fn values<E: Element>(name: &str, tensor: &Tensor<'_>) -> Result<Vec<E::Real>, Refusal> {
    let input = Input::<E>::new(name, tensor, tensor.axes(), 0)?;
    Ok(widened(input.reader(1).row(0)))
}

fn widened<E: Element>(from: Source<'_, E>) -> Vec<E::Real> {
    let mut to = vec![E::Real::default(); from.len()];
    simd::run(InstructionSet::current(), Widen { from, to: &mut to });
    to
}

/// Widens all elements.
struct Widen<'a, E: Element> {
    from: Source<'a, E>,
    to: &'a mut [E::Real],
}

impl<E: Element> Task for Widen<'_, E> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        map(simd, self.from, Sink::from(self.to), |x| x);
    }
}

fn check_param_type<D: Element>(name: &str, tensor: &Tensor<'_>) -> Result<(), Refusal> {
    if tensor.dtype == D::DTYPE || (tensor.dtype == Dtype::F32 && D::DTYPE.size() == 2) {
        return Ok(());
    }
    Err(Refusal::Unsupported(format!("`{name}` of dtype {} beside data of dtype {}", tensor.dtype, D::DTYPE)))
}

/// A gradient of a parameter or a new statistic to be written, once its values are known.
pub struct ParamOutput<'a> {
    name: &'a str,
    tensor: Tensor<'a>,
}

impl<'a> ParamOutput<'a> {
    /// The output of this name, if it is asked for.
    ///
    /// # Errors
    /// If its sizes are not these.
    pub fn find(call: &Call<'a>, name: &'a str, sizes: &[i64]) -> Result<Option<Self>, Refusal> {
        let Some(tensor) = call.output(name) else { return Ok(None) };
        expect_sizes(name, &tensor, sizes)?;
        let output = ParamOutput { name, tensor };
        // A refusal must come before anything is written.
        output.write_if(None::<&fn(usize, &mut [f64])>)?;
        Ok(Some(output))
    }

    /// Rounds and writes the values.
    ///
    /// # Errors
    /// None that [`find`](Self::find) did not find.
    pub fn write(&self, values: impl ExactSizeIterator<Item = f64>) -> Result<(), Refusal> {
        let values: Vec<f64> = values.collect();
        self.write_parts(|start, part| part.copy_from_slice(&values[start..start + part.len()]))
    }

    /// Rounds and writes the values that `fill` puts into a part of them, from the one it is told on.
    ///
    /// # Errors
    /// None that [`find`](Self::find) did not find.
    pub fn write_parts(&self, fill: impl Fn(usize, &mut [f64])) -> Result<(), Refusal> {
        self.write_if(Some(&fill))
    }

    fn write_if(&self, fill: Option<&impl Fn(usize, &mut [f64])>) -> Result<(), Refusal> {
        match self.tensor.dtype {
            Dtype::F32 => self.write_as::<f32>(fill),
            Dtype::F64 => self.write_as::<f64>(fill),
            Dtype::Bf16 => self.write_as::<bf16>(fill),
            Dtype::F16 => self.write_as::<f16>(fill),
        }
    }

    fn write_as<E: Element>(&self, fill: Option<&impl Fn(usize, &mut [f64])>) -> Result<(), Refusal> {
        let output = Output::<E>::new(self.name, &self.tensor, self.tensor.axes(), 0)?;
        if let Some(fill) = fill.filter(|_| !self.tensor.shape.contains(&0)) {
            simd::run(InstructionSet::current(), Round { fill, to: output.writer(1, false) });
        }
        Ok(())
    }
}

/// Rounds and writes the only row of a tensor, part by part.
struct Round<'a, E, F> {
    fill: &'a F,
    to: Writer<'a, E>,
}

/// Values of such a part: they stay in the first-level cache.
pub const PART: usize = 256;

impl<E: Element, F: Fn(usize, &mut [f64])> Task for Round<'_, E, F> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Round { fill, mut to } = self;
        let (mut values, mut prepared) = ([0.0; PART], [E::Real::default(); PART]);
        let mut row = to.row(0);
        let mut start = 0;
        while start < row.len() {
            let count = PART.min(row.len() - start);
            fill(start, &mut values[..count]);
            for (prepared, value) in prepared.iter_mut().zip(&values) {
                *prepared = E::prepare(*value);
            }
            map(simd, Source::from(&prepared[..count]), row.part(start..start + count), |x| x);
            start += count;
        }
        to.commit(0);
    }
}
