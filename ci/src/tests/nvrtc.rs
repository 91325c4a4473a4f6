//! What is particular to NVRTC: when it is needed, and where else it may be.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::Planted;
use crate::error::Error;
use crate::nvrtc::{NVRTC, is_needed};
use crate::part::{Fault, Part};
use crate::wheels::{Wheel, Wheels};

static WHEELS: Wheels = Wheels {
    platforms: &["manylinux2014_x86_64"],
    wheels: &[
        Wheel {
            requirement: "nvidia-cuda-nvrtc==13.0.88",
            sha256: "0000000000000000000000000000000000000000000000000000000000000000",
            folder: "nvidia/cu13/",
            members: &["lib/libnvrtc.so.13", "lib/libnvrtc-builtins.so.13.0"],
        },
        Wheel {
            requirement: "nvidia-cuda-runtime==13.0.96",
            sha256: "0000000000000000000000000000000000000000000000000000000000000000",
            folder: "nvidia/cu13/",
            members: &["include/"],
        },
    ],
    bytes: 1_000_000,
};

static PLANTED_NVRTC: Part = Part { wheels: |_| Some(&WHEELS), ..NVRTC };

const FILES: [&str; 4] =
    ["lib/libnvrtc.so.13", "lib/libnvrtc-builtins.so.13.0", "include/cuda_fp16.h", "include/cuda_bf16.h"];

impl Planted {
    /// A machine with wheels of NVRTC, beside those of libtorch, and without a C++ compiler.
    fn with_nvrtc() -> Self {
        let planted = Planted::new();
        planted.wheel(
            "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.whl",
            &[
                ("nvidia/cu13/lib/libnvrtc.so.13", "nvrtc"),
                ("nvidia/cu13/lib/libnvrtc-builtins.so.13.0", "builtins"),
                ("nvidia/cu13/lib/libnvrtc.alt.so.13", "not wanted"),
            ],
        );
        planted.wheel(
            "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl",
            &[
                ("nvidia/cu13/lib/libcudart.so.13", "not wanted by this part"),
                ("nvidia/cu13/include/cuda_fp16.h", "f16"),
                ("nvidia/cu13/include/cuda_bf16.h", "bf16"),
            ],
        );
        fs::remove_file(planted.path("bin/c++")).unwrap();
        planted
    }

    /// A folder that passes for an NVRTC.
    fn nvrtc(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        for file in FILES {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        folder
    }

    fn ensure_nvrtc(&self) -> Result<PathBuf, Error> {
        PLANTED_NVRTC.ensure(&self.workspace, &self.machine)
    }

    fn leads(&self) -> PathBuf {
        fs::read_link(self.workspace.root.join("target/nvrtc")).unwrap()
    }
}

#[test]
fn is_fetched_only_to_compile_cuda() {
    let needed = |line: &str| is_needed(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
    for line in [
        "test",
        "test -p isonorm-cuda",
        "certify --device ptx",
        "certify --op rms_norm --device=cuda",
        "certify --cuda mine.cu",
        "certify --cuda=mine.toml --device ptx",
        "replay --cuda mine.cu rms_norm:forward",
        "bench --device ptx",
        "gate --baseline b.json --device ptx",
    ] {
        assert!(needed(line), "{line}");
    }
    for line in [
        "",
        "certify",
        "certify --device cpu",
        "certify --device",
        "certify --plugin libmine.so",
        "certify --cuda mine.ptx --device ptx",
        "certify --triton mine.py:kernel --device ptx",
        "list kernels --device ptx",
        "doctor",
        "explain rms_norm",
        "report --out test",
    ] {
        assert!(!needed(line), "{line}");
    }
}

#[test]
fn libraries_and_headers_are_unpacked_and_nothing_else() {
    let planted = Planted::with_nvrtc();
    let folder = planted.ensure_nvrtc().unwrap();
    assert_eq!(folder, planted.workspace.root.join("target/nvrtc"));
    for (name, text) in FILES.iter().zip(["nvrtc", "builtins", "f16", "bf16"]) {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), text);
    }
    assert_eq!(fs::read_dir(folder.join("lib")).unwrap().count(), 2);

    planted.ensure_nvrtc().unwrap();
    assert_eq!(planted.downloads(), 1);
    fs::write(folder.join(FILES[0]), "half").unwrap();
    planted.ensure_nvrtc().unwrap();
    assert_eq!((planted.downloads(), fs::read_to_string(folder.join(FILES[0])).unwrap()), (2, "nvrtc".to_owned()));
}

#[test]
fn both_parts_lie_side_by_side() {
    let planted = Planted::with_nvrtc();
    planted.program("c++", "");
    planted.wheel(
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl",
        &[
            ("nvidia/cu13/lib/libcudart.so.13", "cudart"),
            ("nvidia/cu13/include/cuda_fp16.h", "f16"),
            ("nvidia/cu13/include/cuda_bf16.h", "bf16"),
        ],
    );
    planted.ensure().unwrap();
    planted.ensure_nvrtc().unwrap();
    planted.assert_unpacked();
    assert_eq!(planted.leads(), Path::new("nvrtc-13.0.88"));
}

#[test]
fn the_users_folder_comes_first_and_is_checked() {
    let mut planted = Planted::with_nvrtc();
    let own = planted.nvrtc("own");
    planted.machine.variables.insert("ISONORM_NVRTC", own.clone());
    assert_eq!(planted.ensure_nvrtc().unwrap(), own);

    fs::remove_file(own.join("include/cuda_bf16.h")).unwrap();
    let error = planted.ensure_nvrtc().unwrap_err();
    let missing = Fault::Missing("include/cuda_bf16.h".to_owned());
    assert!(matches!(&error, Error::Own { path, fault, .. } if (path, fault) == (&own, &missing)), "{error}");
    assert!(error.to_string().starts_with("ISONORM_NVRTC="), "{error}");

    fs::write(own.join("include/cuda_bf16.h"), "").unwrap();
    fs::remove_file(own.join(FILES[1])).unwrap();
    let error = planted.ensure_nvrtc().unwrap_err();
    assert!(matches!(&error, Error::Own { fault: Fault::Missing(name), .. } if name.contains("builtins")), "{error}");
    assert_eq!(planted.downloads(), 0);
}

#[test]
fn a_toolkit_or_a_python_environment_is_used() {
    type Plant = fn(&mut Planted) -> PathBuf;
    let plants: [(&str, Plant); 3] = [
        ("a toolkit", |planted| {
            let folder = planted.nvrtc("cuda");
            planted.machine.variables.insert("CUDA_HOME", folder.clone());
            folder
        }),
        ("a toolkit's target", |planted| {
            planted.machine.variables.insert("CUDA_PATH", planted.path("cuda"));
            planted.nvrtc("cuda/targets/x86_64-linux")
        }),
        ("a Python environment", |planted| {
            let folder = planted.nvrtc("site-packages/nvidia/cu13");
            planted.python(&format!("isonorm {}", folder.display()), "exit 1");
            folder
        }),
    ];
    for (name, plant) in plants {
        let mut planted = Planted::with_nvrtc();
        let folder = plant(&mut planted);
        planted.ensure_nvrtc().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((planted.leads(), planted.downloads()), (folder.clone(), 0), "{name}");

        // One that is not complete is passed over.
        fs::remove_file(planted.workspace.root.join("target/nvrtc")).unwrap();
        fs::remove_file(folder.join("include/cuda_fp16.h")).unwrap();
        planted.python(&format!("isonorm {}", folder.display()), "/bin/cp \"$registry\"/*.whl \"$dest\"");
        planted.ensure_nvrtc().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((planted.leads(), planted.downloads()), ("nvrtc-13.0.88".into(), 1), "{name}");
    }
}
