//! The bootstrap on planted machines. None of this needs a network.

mod nvrtc;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::error::{At, Error};
use crate::libtorch::{LIBTORCH, VERSION};
use crate::machine::Machine;
use crate::nvrtc::NVRTC;
use crate::part::{Fault, Part};
use crate::wheels::{Wheel, Wheels};
use crate::workspace::Workspace;

const HEADER: &str = "include/torch/csrc/api/include/torch/torch.h";

/// Small wheels of the same form as the real ones.
static PLANTED_LIBTORCH: Part = Part { wheels: |_| Some(&WHEELS), ..LIBTORCH };

static WHEELS: Wheels = Wheels {
    platforms: &["manylinux_2_28_x86_64"],
    wheels: &[
        Wheel {
            requirement: "torch==2.11.0",
            sha256: "0000000000000000000000000000000000000000000000000000000000000000",
            folder: "torch/",
            members: &["include/", "lib/libc10.so", "lib/libtorch_cpu.so"],
        },
        Wheel {
            requirement: "nvidia-cuda-runtime==13.0.96",
            sha256: "0000000000000000000000000000000000000000000000000000000000000000",
            folder: "nvidia/cu13/",
            members: &["lib/libcudart.so.13"],
        },
    ],
    bytes: 1_000_000,
};

/// A machine with a C++ compiler, and a Python whose pip "downloads" from a folder.
struct Planted {
    folder: TempDir,
    workspace: Workspace,
    machine: Machine,
    _alone: MutexGuard<'static, ()>,
}

/// A program cannot be started while a process that another test is starting still holds it open for writing.
static ALONE: Mutex<()> = Mutex::new(());

impl Planted {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let planted = Planted {
            workspace: Workspace { root: at("workspace"), target: at("workspace/target") },
            machine: Machine {
                platform: "linux-x86_64-gnu".to_owned(),
                path: at("bin").into(),
                variables: BTreeMap::new(),
                compiler: "c++".to_owned(),
                free_space: |_| Ok(u64::MAX),
            },
            folder,
            _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
        };
        for name in ["bin", "registry"] {
            fs::create_dir(planted.path(name)).unwrap();
        }
        planted.program("c++", "");
        planted.python("no torch here", "/bin/cp \"$registry\"/*.whl \"$dest\"");
        planted.wheel(
            "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
            &[
                ("torch/include/torch/csrc/api/include/torch/torch.h", "header"),
                ("torch/lib/libc10.so", "c10"),
                ("torch/lib/libtorch_cpu.so", "cpu"),
                ("torch/lib/libtorch_cuda.so", "not wanted"),
            ],
        );
        planted.wheel(
            "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl",
            &[("nvidia/cu13/lib/libcudart.so.13", "cudart")],
        );
        planted
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A Python that answers the question for its torch with `torch`, and whose `pip download` runs `download`.
    fn python(&self, torch: &str, download: &str) {
        let registry = self.path("registry");
        let log = self.path("downloads.log");
        let script = format!(
            r#"case "$*" in
                *"pip --version"|--version) ;;
                "-c "*) echo "{torch}" ;;
                *"pip download"*)
                    echo download >> '{log}'
                    while [ $# -gt 0 ]; do [ "$1" = --dest ] && dest=$2; shift; done
                    registry='{registry}'
                    /bin/mkdir -p "$dest"
                    {download} ;;
                *) exit 1 ;;
            esac"#,
            log = log.display(),
            registry = registry.display(),
        );
        self.program("python3", &script);
    }

    fn wheel(&self, name: &str, members: &[(&str, &str)]) {
        let mut zip = ZipWriter::new(File::create(self.path("registry").join(name)).unwrap());
        for (name, text) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
    }

    /// A folder that passes for a libtorch and states its version in the way of `version_file`.
    fn libtorch(&self, name: &str, version_file: &str, version: &str) -> PathBuf {
        let folder = self.path(name);
        for file in ["lib/libc10.so", "lib/libtorch_cpu.so", "lib/libtorch.so", HEADER] {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        fs::write(folder.join(version_file), version).unwrap();
        folder
    }

    fn ensure(&self) -> Result<PathBuf, Error> {
        PLANTED_LIBTORCH.ensure(&self.workspace, &self.machine)
    }

    fn link(&self) -> PathBuf {
        self.workspace.root.join("target/libtorch")
    }

    fn downloads(&self) -> usize {
        fs::read_to_string(self.path("downloads.log")).unwrap_or_default().lines().count()
    }

    /// That `target/libtorch` holds what the wheels hold.
    fn assert_unpacked(&self) {
        let read = |name: &str| fs::read_to_string(self.link().join(name)).unwrap();
        assert_eq!(read("lib/libc10.so"), "c10");
        assert_eq!(read("lib/libtorch_cpu.so"), "cpu");
        assert_eq!(read("lib/libcudart.so.13"), "cudart");
        assert_eq!(read("lib/libtorch.so"), "INPUT(libtorch_cpu.so)\n");
        assert_eq!(read("build-version"), VERSION);
        assert_eq!(read(HEADER), "header");
        assert!(!self.link().join("lib/libtorch_cuda.so").exists());
        assert!(!self.unfinished().exists());
    }

    fn unfinished(&self) -> PathBuf {
        self.path("workspace/target/.libtorch-unfinished")
    }
}

#[test]
fn libtorch_is_downloaded_once() {
    let mut planted = Planted::new();
    assert_eq!(planted.ensure().unwrap(), planted.link());
    planted.assert_unpacked();

    // As cargo runs the bootstrap: with the default of its configuration in the environment.
    planted.machine.variables.insert("LIBTORCH", planted.link());
    fs::remove_dir_all(planted.path("bin")).unwrap();
    planted.ensure().unwrap();
    assert_eq!(planted.downloads(), 1);
}

#[test]
fn processes_wait_for_each_other() {
    let planted = Planted::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| planted.ensure().unwrap());
        }
    });
    planted.assert_unpacked();
    assert_eq!(planted.downloads(), 1);
}

#[test]
fn a_moved_workspace_keeps_its_libtorch() {
    let mut planted = Planted::new();
    planted.ensure().unwrap();
    fs::rename(&planted.workspace.root, planted.path("moved")).unwrap();
    planted.workspace = Workspace { root: planted.path("moved"), target: planted.path("moved/target") };
    planted.ensure().unwrap();
    fs::remove_file(planted.link()).unwrap();
    planted.ensure().unwrap();
    assert_eq!(planted.downloads(), 1);
    assert!(planted.link().join(HEADER).exists());
}

#[test]
fn what_is_damaged_is_repaired() {
    type Damage = fn(&Planted);
    let damages: [(&str, Damage); 5] = [
        ("a truncated library", |planted| {
            fs::write(planted.link().join("lib/libtorch_cpu.so"), "").unwrap();
        }),
        ("a missing library", |planted| {
            fs::remove_file(planted.link().join("lib/libcudart.so.13")).unwrap();
        }),
        ("another version", |planted| {
            fs::write(planted.link().join("build-version"), "2.10.0").unwrap();
        }),
        ("a link that leads nowhere", |planted| {
            fs::remove_dir_all(planted.link().canonicalize().unwrap()).unwrap();
        }),
        ("an interrupted download, and a folder in place of the link", |planted| {
            fs::remove_dir_all(planted.link().canonicalize().unwrap()).unwrap();
            fs::remove_file(planted.link()).unwrap();
            fs::create_dir_all(planted.link().join("lib")).unwrap();
            fs::create_dir_all(planted.unfinished().join("wheels")).unwrap();
            fs::write(planted.unfinished().join("wheels/torch-2.11.0-half.whl"), "half").unwrap();
        }),
    ];
    for (name, damage) in damages {
        let planted = Planted::new();
        planted.ensure().unwrap();
        damage(&planted);
        planted.ensure().unwrap_or_else(|error| panic!("{name}: {error}"));
        planted.assert_unpacked();
        assert_eq!(planted.downloads(), 2, "{name}");
    }
}

#[test]
fn what_is_missing_is_said() {
    type Plant = fn(&mut Planted);
    type Expect = fn(&Error) -> bool;
    let faults: [(&str, Plant, Expect); 11] = [
        (
            "no Python",
            |planted| fs::remove_file(planted.path("bin/python3")).unwrap(),
            |error| matches!(error, Error::NoPython { .. }),
        ),
        (
            "no pip",
            |planted| planted.program("python3", r#"[ "$1" = --version ]"#),
            |error| matches!(error, Error::NoPip { python, .. } if python == "python3"),
        ),
        (
            "no compiler",
            |planted| fs::remove_file(planted.path("bin/c++")).unwrap(),
            |error| matches!(error, Error::NoCompiler { program } if program == "c++"),
        ),
        (
            "a compiler that does not run",
            |planted| planted.machine.compiler = "wrapper clang++".to_owned(),
            |error| matches!(error, Error::NoCompiler { program } if program == "wrapper clang++"),
        ),
        (
            "too little disk",
            |planted| planted.machine.free_space = |_| Ok(999_999),
            |error| matches!(error, Error::LittleDisk { needed: 1_000_000, free: 999_999, .. }),
        ),
        (
            "a disk that cannot be asked",
            |planted| planted.machine.free_space = |path| Err(std::io::Error::other("planted")).at("ask", path),
            |error| matches!(error, Error::Io { action: "ask", .. }),
        ),
        (
            "no network",
            |planted| {
                planted.python(
                    "",
                    "echo \"WARNING: Retrying after connection broken by 'NewConnectionError'\" >&2
                     echo 'ERROR: No matching distribution found for torch==2.11.0' >&2
                     exit 1",
                );
            },
            |error| matches!(error, Error::NoNetwork { .. }),
        ),
        (
            "a bad checksum",
            |planted| planted.python("", "echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES' >&2; exit 1"),
            |error| matches!(error, Error::BadChecksum),
        ),
        (
            "another trouble of pip's",
            |planted| planted.python("", "echo 'ERROR: planted' >&2; exit 1"),
            |error| matches!(error, Error::Pip { .. }),
        ),
        (
            "a wheel without a library",
            |planted| {
                planted.wheel("torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl", &[("torch/lib/libc10.so", "")])
            },
            |error| matches!(error, Error::BadWheel { fault: Fault::Missing(name), .. } if name == "lib/libtorch_cpu.so"),
        ),
        (
            "a wheel that is no archive",
            |planted| {
                let wheel = "registry/torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl";
                fs::write(planted.path(wheel), "half a file").unwrap();
            },
            |error| matches!(error, Error::Unzip { .. }),
        ),
    ];
    for (name, plant, expected) in faults {
        let mut planted = Planted::new();
        plant(&mut planted);
        let error = planted.ensure().expect_err(name);
        assert!(expected(&error), "{name}: {error}");
        assert!(!planted.link().exists(), "{name}: something was put in place");
        assert!(!planted.unfinished().exists(), "{name}: something was left behind");
    }
}

#[test]
fn an_unknown_platform_needs_a_libtorch_of_the_users() {
    let mut planted = Planted::new();
    planted.machine.platform = "plan9-mips-other".to_owned();
    let error = LIBTORCH.ensure(&planted.workspace, &planted.machine).unwrap_err();
    assert!(matches!(&error, Error::UnsupportedPlatform { platform, .. } if platform == "plan9-mips-other"), "{error}");
}

#[test]
fn the_users_libtorch_comes_first() {
    let mut planted = Planted::new();
    planted.ensure().unwrap();
    let own = planted.libtorch("own", "build-version", "2.11.0+cpu\n");
    planted.machine.variables.insert("LIBTORCH", own.clone());
    assert_eq!(planted.ensure().unwrap(), own);
    assert_eq!(fs::read_link(planted.link()).unwrap(), own);
}

#[test]
fn a_wrong_libtorch_of_the_users_is_refused() {
    let mut planted = Planted::new();
    let old = planted.libtorch("old", "build-version", "2.10.1");
    let incomplete = planted.libtorch("incomplete", "build-version", VERSION);
    fs::remove_file(incomplete.join("lib/libtorch_cpu.so")).unwrap();
    let cases = [
        (old, Fault::Version { found: "2.10.1".to_owned(), needed: VERSION }),
        (incomplete, Fault::Missing("lib/libtorch_cpu.so".to_owned())),
        (planted.path("nowhere"), Fault::Missing("lib/libc10.so".to_owned())),
    ];
    for (folder, expected) in cases {
        planted.machine.variables.insert("LIBTORCH", folder.clone());
        match planted.ensure() {
            Err(Error::Own { path, fault, .. }) => assert_eq!((path, fault), (folder, expected)),
            other => panic!("{}: {other:?}", folder.display()),
        }
        assert_eq!(planted.downloads(), 0, "{}", planted.folder.path().display());
    }
}

#[test]
fn a_pytorch_of_the_right_version_is_used() {
    for (version, abi, used) in [("2.11.0+cu130", 1, true), ("2.10.0+cpu", 1, false), ("2.11.0", 0, false)] {
        let planted = Planted::new();
        let text = format!("from typing import Optional\n__version__ = '{version}'\n");
        let torch = planted.libtorch("site-packages/torch", "version.py", &text);
        planted.python(&format!("isonorm {abi} {}", torch.display()), "/bin/cp \"$registry\"/*.whl \"$dest\"");
        planted.ensure().unwrap();
        let linked = fs::read_link(planted.link()).unwrap() == torch;
        assert_eq!((linked, planted.downloads()), (used, usize::from(!used)), "{version}, ABI {abi}");
    }
}

#[test]
fn another_target_folder_gets_a_link() {
    let mut planted = Planted::new();
    planted.workspace.target = planted.path("elsewhere");
    planted.ensure().unwrap();
    let linked = planted.path("elsewhere/libtorch/lib/libtorch_cpu.so");
    assert_eq!(fs::read_to_string(linked).unwrap(), "cpu");
}

/// The real pip, offered a file of the right name and the wrong content.
#[test]
fn pip_verifies_the_checksum() {
    let mut planted = Planted::new();
    let here = Machine::here();
    let Ok(python) = here.require_pip(&LIBTORCH) else {
        eprintln!("skipped: there is no Python with pip");
        return;
    };
    planted.program(
        "python3",
        &format!(
            r#"[ "$1" = -c ] && exit 1
               export PIP_NO_INDEX=1 PIP_FIND_LINKS='{}' PATH='{}'
               exec {python} "$@""#,
            planted.path("registry").display(),
            Path::new(&here.path).display(),
        ),
    );
    planted.machine.free_space = here.free_space;
    let error = planted.ensure().unwrap_err();
    assert!(matches!(error, Error::BadChecksum), "{error}");
    assert!(!planted.link().exists());
}

#[test]
fn the_pins_agree_with_the_versions() {
    for platform in ["linux-x86_64-gnu", "linux-aarch64-gnu"] {
        for (part, pin) in [(LIBTORCH, "torch"), (NVRTC, "nvidia-cuda-nvrtc")] {
            let wheels = (part.wheels)(platform).unwrap();
            let pins: Vec<&str> = wheels.wheels.iter().map(|wheel| wheel.requirement).collect();
            assert!(pins.contains(&format!("{pin}=={}", part.version).as_str()), "{platform}: {pins:?}");
            assert!(part.unpacked.contains(part.version), "{}", part.unpacked);
            for wheel in wheels.wheels {
                assert!(wheel.sha256.len() == 64 && wheel.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
                assert!(!wheel.members.is_empty(), "{}", wheel.requirement);
            }
        }
    }
}
