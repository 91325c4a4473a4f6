//! Lets cargo put libtorch on the library path of the programs that it starts.
//!
//! Programs find libtorch by the relative run path in `.cargo/config.toml`, except documentation tests, which are linked
//! in a temporary folder. Cargo adds a library folder to the library path only if it lies below the folder of the
//! profile, hence a link there.

use std::io::Result;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    // Without it torch-sys has its own ways, and the user sees to the library path.
    let (Some(libtorch), Some(out)) = (env::var_os("LIBTORCH"), env::var_os("OUT_DIR")) else {
        return Ok(());
    };
    let link = Path::new(&out).join("libtorch");
    if link.is_symlink() {
        fs::remove_file(&link)?;
    }
    symlink(Path::new(&libtorch).join("lib"), &link)?;
    println!("cargo::rustc-link-search=native={}", link.display());
    Ok(())
}
