//! The game profiles that dormouse ships: built into a node, and a new region's game layer.

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        /// Name and text, in the order of the names.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../daemon/profiles/", $name, ".toml")))),+];
    };
}

shipped!(
    "ddnet",
    "factorio",
    "generic-tcp",
    "generic-udp",
    "luanti",
    "minecraft-bedrock",
    "minecraft-java",
    "palworld",
    "project-zomboid",
    "quake3",
    "rust",
    "source",
    "teeworlds",
    "terraria",
    "valheim",
    "valheim-crossplay",
);

#[cfg(test)]
mod tests {
    use super::SHIPPED;

    #[test]
    fn every_profile_is_shipped() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemon/profiles");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        files.sort();
        let shipped: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        assert_eq!(shipped, files);
    }
}
