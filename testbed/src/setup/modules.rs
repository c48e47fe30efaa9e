//! Resolves kernel modules to files in load order, from `modules.dep` and
//! `modules.builtin` as depmod writes them.

use std::collections::HashMap;

/// Which module files a kernel has and what each needs.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    files: HashMap<String, String>,
    needs: HashMap<String, Vec<String>>,
    built_in: Vec<String>,
}

impl Modules {
    /// Reads the two files; lines that are not understood are passed over.
    pub(crate) fn parse(dep: &str, built_in: &str) -> Self {
        let mut modules = Self::default();
        for (file, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            modules.files.insert(name_of(file), file.to_owned());
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            modules.needs.insert(file.to_owned(), needs);
        }
        modules.built_in = built_in.lines().map(name_of).collect();
        modules
    }

    /// The files of `names` and all they need, each once, needs first. A name that is
    /// built in has no file; one that does not exist is returned as the error.
    pub(crate) fn load_order<'a>(&self, names: &[&'a str]) -> Result<Vec<String>, &'a str> {
        let mut order: Vec<String> = Vec::new();
        for name in names {
            let Some(file) = self.files.get(&name_of(name)) else {
                if self.built_in.contains(&name_of(name)) {
                    continue;
                }
                return Err(name);
            };
            let needs = self.needs.get(file).map(Vec::as_slice).unwrap_or_default();
            for file in needs.iter().rev().chain([file]) {
                if !order.contains(file) {
                    order.push(file.clone());
                }
            }
        }
        Ok(order)
    }
}

/// The name of a module: of its file, without suffixes, with underscores.
pub(crate) fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n\
        kernel/net/9p/9pnet.ko:\nkernel/fs/netfs/netfs.ko: \n\
        kernel/a/kvm-amd.ko.xz: kernel/a/ccp.ko.xz kernel/a/kvm.ko.xz kernel/b/irqbypass.ko.xz\n";

    #[test]
    fn needs_are_loaded_before_what_needs_them_and_each_once() {
        let modules = Modules::parse(DEP, "");
        let order = modules.load_order(&["9pnet", "9p"]).unwrap();
        assert_eq!(
            order,
            [
                "kernel/net/9p/9pnet.ko",
                "kernel/fs/netfs/netfs.ko",
                "kernel/fs/9p/9p.ko"
            ]
        );
    }

    #[test]
    fn dashes_and_underscores_are_the_same_and_needs_come_in_reverse() {
        let order = Modules::parse(DEP, "").load_order(&["kvm_amd"]).unwrap();
        assert_eq!(order.first().unwrap(), "kernel/b/irqbypass.ko.xz");
        assert_eq!(order.last().unwrap(), "kernel/a/kvm-amd.ko.xz");
        assert_eq!(name_of("kernel/a/kvm-amd.ko.xz"), "kvm_amd");
    }

    #[test]
    fn a_built_in_module_needs_no_file_and_an_unknown_one_is_named() {
        let modules = Modules::parse(DEP, "kernel/drivers/virtio/virtio.ko\n");
        assert_eq!(modules.load_order(&["virtio"]).unwrap(), Vec::<String>::new());
        assert_eq!(modules.load_order(&["virtio", "no_such"]), Err("no_such"));
    }
}
