//! What programs are made of.

/// A step of a program. Data are `[batch, tokens, width]`. Parts that have parameters have a name: parts of the same name in
/// different programs have the same original parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A normalization of every row.
    Norm {
        /// Whose parameters.
        name: String,
        /// Which.
        norm: Norm,
        /// In which way.
        by: By,
        /// Whether it has a weight, and a bias where the operator has one.
        affine: bool,
    },
    /// What goes in, plus what the parts make of it.
    Residual(Vec<Part>),
    /// The sum of what branches make of the same data.
    Sum(Vec<Vec<Part>>),
    /// A linear layer with a bias.
    Linear {
        /// Whose parameters.
        name: String,
        /// Inputs and outputs of the original matrix.
        sizes: (usize, usize),
        /// How the matrix that is used is made of the original one.
        fold: Fold,
    },
    /// FlashNorm: the product first, then the division of each row by its root mean square.
    DeferredLinear {
        /// Whose parameters.
        name: String,
        /// Inputs and outputs.
        sizes: (usize, usize),
        /// The norm whose weight is folded into the matrix.
        norm: String,
    },
    /// An elementwise function.
    Act(Act),
    /// Attention between the tokens of each sequence. What goes in are queries, keys and, where the mix has some, values,
    /// side by side.
    Attention {
        /// Whose parameters.
        name: String,
        /// How many.
        heads: usize,
        /// What the scores mix.
        mix: Mix,
    },
    /// Attention that mixes what goes in by `α·1 + β·softmax(scores) − γ·uniform`: without values, and without a projection.
    ShapedAttention {
        /// Whose parameters.
        name: String,
        /// How many.
        heads: usize,
    },
    /// A recurrent network over the tokens (GRU), with a norm at each gate of input and state: six in a step.
    Recurrent {
        /// Whose parameters.
        name: String,
        /// Which norm, and in which way; none for none.
        norm: Option<(Norm, By)>,
    },
    /// Leaky neurons that integrate over the batch, as steps in time, and fire.
    Fire {
        /// Whose parameters.
        name: String,
        /// When.
        when: Fire,
    },
    /// Rows as images: channels first, as square as can be.
    AsImages,
    /// A convolution of 3x3 with as many channels out as in.
    Convolution {
        /// Whose parameters.
        name: String,
        /// Whether its weights are standardized, and scaled.
        standardized: bool,
    },
    /// BatchNorm of channels.
    BatchNorm {
        /// Whose parameters.
        name: String,
        /// Whether the statistics are those of the batch.
        batch: bool,
        /// Whether weight and bias are learned.
        learned: bool,
        /// Whether what is not learned is a constant scale and shift, for which nothing need be kept.
        sparing: bool,
    },
    /// To whole numbers of 8 bits, each a [`LEVEL`].
    ToLevels,
    /// Back.
    FromLevels,
    /// To whole numbers of 8 bits, each a [`UNIT`]: what comes out of a norm.
    ToUnits,
    /// LayerNorm from levels to units in whole numbers, with Newton's square root, as I-BERT has it.
    IntegerLayerNorm {
        /// Whose parameters.
        name: String,
    },
    /// Every row without its mean.
    Centre,
    /// Every row without its mean and then without its last entry.
    CentreAndDrop,
    /// Done once, before anything is measured: what makes the data ready.
    Before(Vec<Part>),
}

impl Part {
    /// The same function, whatever the way: norms step by step.
    pub fn function(&self) -> Part {
        let all = |parts: &[Part]| parts.iter().map(Part::function).collect();
        let steps = |_: By| By::Steps;
        match self.clone() {
            Part::Norm { name, norm, by, affine } => Part::Norm { name, norm, by: steps(by), affine },
            Part::Recurrent { name, norm } => Part::Recurrent { name, norm: norm.map(|(norm, by)| (norm, steps(by))) },
            Part::Residual(parts) => Part::Residual(all(&parts)),
            Part::Sum(branches) => Part::Sum(branches.iter().map(|parts| all(parts)).collect()),
            Part::Before(parts) => Part::Before(all(&parts)),
            other => other,
        }
    }
}

/// A normalization of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// LayerNorm.
    Layer,
    /// RMSNorm.
    Rms,
    /// RMSNorm with the root mean square of the first entries, so large a share of them.
    PartialRms(f64),
    /// RMSNorm of rows of mean 0 that are stored without their last entry.
    CompressedRms,
    /// BatchNorm with fixed statistics: a scale and a shift for each entry.
    Affine,
}

/// The way in which a norm is computed: "LayerNorm" is several programs, and every claim depends on which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// One tensor operation for each step, each of which reads and writes everything, as an interpreted framework does it.
    Steps,
    /// A plain loop that goes over a row for the mean, again for the variance, and again to write.
    ThreeSweeps,
    /// A plain loop that takes all sums in one go, and goes over the row again to write.
    TwoSweeps,
    /// What libtorch has.
    Libtorch,
    /// The built-in kernel.
    Kernel,
}

/// How a matrix `[out, in]` and its bias are made of the original ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Fold {
    /// As they are.
    None,
    /// Every column times the weight of this norm.
    Weight(String),
    /// Every column times the scale of this [`Norm::Affine`], and the matrix times its shift added to the bias.
    Affine(String),
    /// What is written has mean 0.
    Centred,
    /// The same without the last output.
    CentredAndDropped,
    /// For data without their last entry: from every column the last one is taken away, which goes.
    WithoutLast,
}

/// When a neuron fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fire {
    /// If its potential reaches one threshold for all.
    Plain,
    /// If its potential, after BatchNorm with fixed statistics, reaches the threshold.
    Normalized,
    /// If its potential reaches a threshold of its channel, into which BatchNorm is folded.
    Folded,
}

/// What a whole number of 8 bits counts before a norm.
pub const LEVEL: f64 = 1.0 / 512.0;
/// And behind it.
pub const UNIT: f64 = 1.0 / 32.0;

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// ReLU.
    Relu,
    /// GELU.
    Gelu,
    /// The first half of the entries, each x·sigmoid(x), times the second half.
    SwiGlu,
}

/// What attention mixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Values, by the softmax of the scores.
    Values,
}
