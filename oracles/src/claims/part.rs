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
    /// Every row without its mean.
    Centre,
    /// Every row without its mean and then without its last entry.
    CentreAndDrop,
    /// Done once, before anything is measured: what makes the data ready.
    Before(Vec<Part>),
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

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
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
