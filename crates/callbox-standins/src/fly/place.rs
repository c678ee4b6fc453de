//! Where a machine goes: regions, aliases, capacity, quota (fly.md sections 2.1, 5.2, 5.3).

use callbox_fly::limits::REGIONS;

use super::refusal::Refusal;
use super::settings::Limits;

/// What a region is used for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub machines: u32,
    pub memory_mb: u64,
}

/// The regions that `expression` names, in its order, each once: codes and the aliases apac,
/// eu, na, sa, us, usa, any.
pub fn expand(expression: &str) -> Result<Vec<&'static str>, Refusal> {
    let mut regions: Vec<&'static str> = Vec::new();
    for word in expression.split(',').map(str::trim) {
        let wanted = |(code, part): &(&str, &str)| match word {
            "any" => true,
            // Toronto is in North America, and not in the United States.
            "us" | "usa" => *part == "na" && *code != "yyz",
            _ => *code == word || *part == word,
        };
        let before = regions.len();
        let mut known = false;
        for found in REGIONS.iter().filter(|region| wanted(region)) {
            known = true;
            if !regions.contains(&found.0) {
                regions.push(found.0);
            }
        }
        if !known && regions.len() == before {
            return Err(Refusal::invalid(format!("unknown region {word:?}")));
        }
    }
    Ok(regions)
}

/// The first of `regions` that has room for another machine of `memory_mb`.
pub fn choose(
    regions: &[&'static str],
    memory_mb: u64,
    limits: &Limits,
    used: impl Fn(&str) -> Used,
    organization: &str,
) -> Result<&'static str, Refusal> {
    let mut refusal = Refusal::no_capacity();
    for region in regions {
        let Some(limit) = limits.regions.get(*region) else { return Ok(region) };
        let Used { machines, memory_mb: in_use } = used(region);
        if limit.quota_mb.is_some_and(|quota| in_use + memory_mb > quota) {
            refusal = Refusal::quota(organization, in_use + memory_mb, region);
        } else if limit.capacity.is_some_and(|capacity| machines >= capacity) {
            refusal = Refusal::no_capacity();
        } else {
            return Ok(region);
        }
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::super::settings::RegionLimits;
    use super::*;

    #[test]
    fn lists_and_aliases_are_understood() {
        assert_eq!(expand("iad").expect("known"), ["iad"]);
        assert_eq!(expand("lhr,eu").expect("known"), ["lhr", "ams", "arn", "cdg", "fra"]);
        assert_eq!(expand("any").expect("known").len(), REGIONS.len());
        assert_eq!(expand("eu,eu").expect("known").len(), 5);
        assert!(!expand("us").expect("known").contains(&"yyz"));
        for bad in ["", "xyz", "iad,xyz", "iad;dfw"] {
            assert!(expand(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_first_with_room_is_taken_and_the_last_refusal_told() {
        let mut limits = Limits::default();
        let full = RegionLimits { capacity: Some(1), quota_mb: None };
        limits.regions.insert("iad".into(), full);
        limits.regions.insert("dfw".into(), RegionLimits { capacity: None, quota_mb: Some(300) });
        let used = |_: &str| Used { machines: 1, memory_mb: 256 };
        let choose = |regions: &[&'static str]| choose(regions, 256, &limits, used, "me");
        assert_eq!(choose(&["iad", "ams"]), Ok("ams"));
        assert_eq!(choose(&["iad"]), Err(Refusal::no_capacity()));
        assert_eq!(choose(&["iad", "dfw"]), Err(Refusal::quota("me", 512, "dfw")));
    }
}
