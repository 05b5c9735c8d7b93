//! The seeds of the fuzzer (`fuzz/seeds`), as an ordinary test: each as it is, cut short, and with a byte changed. What the
//! fuzzer has ever found lies there, too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use flashsale_server::fuzzing::TARGETS;

/// So many variants of each kind are made of a seed, spread over its length.
const VARIANTS: usize = 48;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds")
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    names
}

#[test]
fn every_seed_and_what_is_near_it_keeps_to_the_properties() {
    for (name, target) in TARGETS {
        let files = names(&seeds().join(name));
        assert!(!files.is_empty(), "{name} has seeds");
        for file in files {
            let seed = fs::read(&file).unwrap();
            println!("{}", file.display());
            target(&seed);
            for at in (0..seed.len()).step_by((seed.len() / VARIANTS).max(1)) {
                println!("{} cut short or changed at byte {at}", file.display());
                target(&seed[..at]);
                let mut changed = seed.clone();
                for byte in [0, b'"', b'9', 0xff, seed[at] ^ 1] {
                    changed[at] = byte;
                    target(&changed);
                }
            }
        }
    }
}

#[test]
fn there_are_seeds_and_a_program_for_every_target_and_no_others() {
    let mut expected: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.sort();
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    assert_eq!(names(&seeds()).iter().map(stem).collect::<Vec<_>>(), expected);
    assert_eq!(names(&seeds().join("../fuzz_targets")).iter().map(stem).collect::<Vec<_>>(), expected);
}
