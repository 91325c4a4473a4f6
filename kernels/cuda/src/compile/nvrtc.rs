//! NVRTC through cudarc's bindings.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr;

use cudarc::nvrtc::{result, sys};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::locate::Nvrtc;
use super::{CompileError, Compiled, Source};

/// Opens the library (the system's, if none is given), so that cudarc finds it, and gives its version.
pub(super) fn open(library: Option<&Path>) -> Result<String, CompileError> {
    let mut own = None;
    if let Some(path) = library {
        preload_builtins(path);
        own = Some(preload(path).map_err(|error| CompileError::NoNvrtc(error.to_string()))?);
    }
    // SAFETY: opening NVRTC runs its initialisers, which do nothing but set it up.
    if !unsafe { sys::is_culib_present() } {
        return Err(CompileError::NoNvrtc(
            "neither ISONORM_NVRTC, nor target/nvrtc, nor Python, nor the system has it".to_owned(),
        ));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are valid for a write.
    check("nvrtcVersion", unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;
    if let (Some(own), Some(path)) = (own, library) {
        let (mut own_major, mut own_minor) = (0, 0);
        // SAFETY: the function of this name has this type in every version of NVRTC.
        let version =
            unsafe { own.get::<unsafe extern "C" fn(*mut i32, *mut i32) -> sys::nvrtcResult>(b"nvrtcVersion") };
        if let Ok(version) = version {
            // SAFETY: both pointers are valid for a write.
            check("nvrtcVersion", unsafe { version(&mut own_major, &mut own_minor) })?;
        }
        if (own_major, own_minor) != (major, minor) {
            return Err(CompileError::NoNvrtc(format!(
                "{} is version {own_major}.{own_minor}, and the system puts {major}.{minor} in its place: take that one off \
                 LD_LIBRARY_PATH",
                path.display()
            )));
        }
        // Never closed: cudarc's handle is to the same library.
        std::mem::forget(own);
    }
    Ok(format!("{major}.{minor}"))
}

/// NVRTC looks for its builtins on the library path only, and wheels put them beside it.
fn preload_builtins(library: &Path) {
    let Some(folder) = library.parent().and_then(|folder| std::fs::read_dir(folder).ok()) else { return };
    let builtins = folder.flatten().map(|file| file.path());
    let named = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libnvrtc-builtins.so") && !name.contains(".alt.")
    };
    builtins.filter(|path| named(path)).for_each(|path| _ = preload(&path).map(std::mem::forget));
}

fn preload(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: loading NVRTC or its builtins runs their initialisers, which do nothing but set them up.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
}

fn check(call: &'static str, status: sys::nvrtcResult) -> Result<(), CompileError> {
    status.result().map_err(|error| CompileError::Nvrtc { call, reason: error.to_string() })
}

/// A program of NVRTC, destroyed in the end, what of it is wanted, and the texts that it may still refer to until then.
struct Program(sys::nvrtcProgram, Vec<CString>, #[expect(dead_code, reason = "kept alive")] Vec<CString>);

impl Program {
    /// What the PTX calls what is wanted.
    fn lowered(&self) -> Result<Vec<String>, CompileError> {
        let name = |expression: &CString| {
            let mut lowered = ptr::null();
            // SAFETY: the program exists and was compiled with this name expression.
            let status = unsafe { sys::nvrtcGetLoweredName(self.0, expression.as_ptr(), &mut lowered) };
            check("nvrtcGetLoweredName", status)?;
            // SAFETY: NVRTC gives NUL-terminated text that lives as long as the program.
            Ok(unsafe { CStr::from_ptr(lowered) }.to_string_lossy().into_owned())
        };
        self.1.iter().map(name).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created and is destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Compiles one instantiation to PTX, with lines of the source.
pub(super) fn compile(nvrtc: &Nvrtc, source: &Source, entry: &str) -> Result<Compiled, CompileError> {
    // PTX is all that is wanted: a virtual architecture saves the assembler.
    let virtual_one = source.arch.replace("sm_", "compute_");
    let program = program(nvrtc, source, &[entry], &virtual_one, "--generate-line-info")?;
    let lowered = program.lowered()?.concat();
    // SAFETY: the program exists and was compiled.
    let ptx = unsafe { result::get_ptx(program.0) };
    let ptx = ptx.map_err(|error| CompileError::Nvrtc { call: "nvrtcGetPTX", reason: error.to_string() })?;
    Ok(Compiled::new(without_folders(&characters(&ptx)), lowered))
}

/// What the PTX calls some instantiations, and what the assembler says of them: registers and spills.
pub(super) fn report(nvrtc: &Nvrtc, source: &Source, entries: &[&str]) -> Result<(Vec<String>, String), CompileError> {
    let program = program(nvrtc, source, entries, &source.arch, "--ptxas-options=-v")?;
    Ok((program.lowered()?, log(&program)))
}

fn log(program: &Program) -> String {
    // SAFETY: the program exists.
    unsafe { result::get_program_log(program.0) }.map(|log| characters(&log)).unwrap_or_default()
}

/// A program, compiled.
fn program(
    nvrtc: &Nvrtc,
    source: &Source,
    entries: &[&str],
    arch: &str,
    option: &str,
) -> Result<Program, CompileError> {
    let text = |what: &str, text: &str| {
        let refused = |_| CompileError::Unavailable(format!("{what} has a NUL byte: {}", source.name));
        CString::new(text).map_err(refused)
    };
    let (name, code) = (text("the file's name", &source.name)?, text("the source", &source.text)?);
    let expressions = entries.iter().map(|entry| text("the entry", entry)).collect::<Result<Vec<_>, _>>()?;
    let mut headers = Vec::new();
    for (name, contents) in &source.include {
        headers.push((text("a name", name)?, text("an included file", contents)?));
    }
    let (names, contents): (Vec<*const c_char>, Vec<*const c_char>) =
        headers.iter().map(|(name, contents)| (name.as_ptr(), contents.as_ptr())).unzip();
    let mut program = ptr::null_mut();
    // SAFETY: all texts end with a NUL; both lists outlive the call, and the texts move into the program (where their bytes
    // stay where they are).
    let created = unsafe {
        sys::nvrtcCreateProgram(
            &mut program,
            code.as_ptr(),
            name.as_ptr(),
            headers.len() as i32,
            contents.as_ptr(),
            names.as_ptr(),
        )
    };
    check("nvrtcCreateProgram", created)?;
    let texts = headers.into_iter().flat_map(|(name, contents)| [name, contents]).chain([name, code]);
    let program = Program(program, expressions, texts.collect());
    for expression in &program.1 {
        // SAFETY: the program exists and the text outlives it.
        check("nvrtcAddNameExpression", unsafe { sys::nvrtcAddNameExpression(program.0, expression.as_ptr()) })?;
    }

    let mut options = vec!["--std=c++17".to_owned(), format!("--gpu-architecture={arch}"), option.to_owned()];
    options.extend(nvrtc.include.iter().map(|folder| format!("--include-path={}", folder.display())));
    options.extend(source.options.iter().cloned());
    for option in &options {
        // cudarc would panic.
        text("an option", option)?;
    }
    // SAFETY: the program exists.
    if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
        let log = log(&program);
        let log = if log.trim().is_empty() { error.to_string() } else { log };
        return Err(CompileError::Refused { file: source.name.clone(), entry: entries.join(", "), log });
    }
    Ok(program)
}

/// Text up to its NUL.
fn characters(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|&character| character as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Line information names files with the folder that the program ran in: only the names stay, so that the PTX is the same
/// everywhere.
fn without_folders(ptx: &str) -> String {
    let mut out = String::with_capacity(ptx.len());
    for line in ptx.split_inclusive('\n') {
        let quoted =
            line.trim_start().starts_with(".file").then(|| Some((line.find('"')?, line.rfind('"')?))).flatten();
        match quoted {
            Some((start, end)) => {
                let name = line[start + 1..end].rsplit('/').next().unwrap_or_default();
                out.extend([&line[..=start], name, &line[end..]]);
            }
            None => out.push_str(line),
        }
    }
    out
}
