//! The same kernels on the GPU of this machine, if it has one: what the executor says must be what the hardware does.

use std::io::{self, Write as _};
use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaContext, CudaStream, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::Ptx;

use super::{BLOCK, bytes_of};

/// Runs the kernel `k` of this text on each row of operands, as [`super::evaluate`] does; none if there is no GPU.
pub fn evaluate(text: &str, widths: &[u32], rows: &[Vec<u64>]) -> Option<Vec<Vec<u8>>> {
    static STREAM: OnceLock<Option<Arc<CudaStream>>> = OnceLock::new();
    let stream = STREAM.get_or_init(|| {
        // Past the capture of the test harness: a skip must be seen.
        let say = |what: String| _ = writeln!(io::stderr(), "{what}");
        // SAFETY: a library of this name is the driver, whose constructors any program may run.
        if !unsafe { sys::is_culib_present() } {
            say("SKIPPED, no instruction was compared with a GPU: there is no CUDA driver".to_owned());
            return None;
        }
        let context = match CudaContext::new(0) {
            Ok(context) => context,
            Err(error) => {
                say(format!("SKIPPED, no instruction was compared with a GPU: the driver has none: {error}"));
                return None;
            }
        };
        say(format!("compared with {}", context.name().unwrap_or_default()));
        Some(context.default_stream())
    });
    let stream = stream.as_ref()?;
    let run = || {
        let module = stream.context().load_module(Ptx::from_src(text))?;
        let kernel = module.load_function("k")?;
        let (result, operands) = widths.split_last().expect("a result");
        let inputs = operands.iter().enumerate().map(|(i, width)| stream.clone_htod(&bytes_of(rows, i, *width)));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let size = (*result / 8) as usize;
        let mut out = stream.alloc_zeros::<u8>(size * rows.len())?;
        let count = rows.len() as u32;
        let mut launch = stream.launch_builder(&kernel);
        inputs.iter().for_each(|input| {
            launch.arg(input);
        });
        launch.arg(&mut out).arg(&count);
        let config =
            LaunchConfig { grid_dim: (count.div_ceil(BLOCK), 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the parameters are those of the text that `super::kernel` writes, and each thread stays in its row.
        unsafe { launch.launch(config) }?;
        let all = stream.clone_dtoh(&out)?;
        stream.synchronize()?;
        Ok::<_, cudarc::driver::DriverError>(all.chunks(size).map(<[u8]>::to_vec).collect())
    };
    Some(run().unwrap_or_else(|error| panic!("{error} on the GPU, of\n{text}")))
}
