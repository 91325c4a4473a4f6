//! Both sides of an identity in the arithmetic of an element type, within the sum of their bounds.

use isonorm_kernels::abi::Dtype;
use isonorm_oracles::interpret::bound::{Arithmetic, OutputBound};
use isonorm_oracles::interpret::torch::{kind, torch, torch_with};
use tch::{Device, Kind, Tensor};

use super::instance::Instance;
use super::kernels::Kernels;
use super::truth::{Truth, worse};

/// What computes a side.
#[derive(Clone, Copy)]
pub enum Through<'a> {
    /// libtorch, operator by operator.
    Libtorch,
    /// Built-in kernels where there are some, libtorch between them.
    Kernels(&'a Kernels),
}

/// How far both sides are apart.
pub struct Apart {
    /// As the largest multiple of the sum of both bounds.
    pub ratio: f64,
    /// Relative to the largest value.
    pub discrepancy: f64,
    /// The largest sum of both bounds, relative to the largest value.
    pub bound: f64,
}

/// Both sides, their true values, and how far computed ones may be from them.
pub struct Tolerated<'a> {
    instance: &'a Instance,
    truth: Truth,
    dtype: Dtype,
    bounds: [Vec<OutputBound>; 2],
}

impl<'a> Tolerated<'a> {
    /// For an instance whose values are numbers of the type.
    pub fn new(instance: &'a Instance, truth: Truth, dtype: Dtype) -> Tolerated<'a> {
        let bounds = truth.bounds(Arithmetic::by_operator(dtype));
        Tolerated { instance, truth, dtype, bounds }
    }

    /// Whether kernels may compute parts of it.
    pub fn has_applications(&self) -> bool {
        self.truth.sides.iter().any(|side| {
            let live = side.live_with_applications();
            side.applications.iter().any(|application| live[application.output.index()])
        })
    }

    /// Both sides.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// Computes both sides and compares them.
    ///
    /// # Errors
    /// If a side could not be computed.
    pub fn apart(&self, through: Through<'_>) -> Result<Apart, String> {
        let [left, right] = [self.side(0, through)?, self.side(1, through)?];
        let mut apart = Apart { ratio: 0.0, discrepancy: 0.0, bound: 0.0 };
        for place in 0..self.truth.outputs() {
            let scale = self.truth.scale(place);
            let [left_bound, right_bound] = self.bounds.each_ref().map(|bounds| &bounds[place].errors);
            for (element, (left, right)) in left[place].iter().zip(&right[place]).enumerate() {
                let tolerated = left_bound[element] + right_bound[element];
                let difference = (left - right).abs();
                // Where nothing can be said, nothing is: NaN included.
                let ratio = if difference == 0.0 || tolerated == f64::INFINITY { 0.0 } else { difference / tolerated };
                apart.ratio = worse(apart.ratio, ratio);
                apart.discrepancy = worse(apart.discrepancy, difference / scale);
                apart.bound = worse(apart.bound, tolerated / scale);
            }
        }
        Ok(apart)
    }

    fn side(&self, side: usize, through: Through<'_>) -> Result<Vec<Vec<f64>>, String> {
        let (graph, sizes) = (&self.truth.sides[side], &self.instance.sizes);
        let tensor = |values: &Vec<f64>| Tensor::from_slice(values).to_kind(kind(self.dtype));
        let inputs: Vec<Tensor> = self.truth.inputs.iter().map(tensor).collect();
        let outputs = match through {
            Through::Libtorch => torch(graph, sizes, &inputs, self.dtype, Device::Cpu),
            Through::Kernels(kernels) => {
                let operators =
                    |application: &_, inputs: &[&Tensor]| kernels.compute(application, sizes, inputs, self.dtype);
                torch_with(graph, sizes, &inputs, self.dtype, &operators)
            }
        };
        let read = |tensor: &Tensor| -> Result<Vec<f64>, tch::TchError> {
            let flat = tensor.f_to_kind(Kind::Double)?.f_contiguous()?.f_view(-1)?;
            Vec::try_from(&flat)
        };
        let outputs = outputs.map_err(|error| error.to_string())?;
        outputs.iter().map(|output| read(output).map_err(|error| error.to_string())).collect()
    }
}
