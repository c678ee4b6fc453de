//! The versions of bots on this host: each is one version of an image, and the template of it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use callbox_core::Fault;
use callbox_microvm::{
    MachineShape,
    image::{Image, ImageError, ImageStore},
    template::Found,
};
use callbox_protocol::agent::Prepare;

use super::{
    Local,
    fault::{fault, image_fault},
    reached,
};
use crate::{BotMachine, BotVersion, ImageRun, StartFrom};

/// A template that no bot uses any more stays so long: who goes back to yesterday's bot should
/// not wait, and disks should not fill.
const UNUSED_TEMPLATES_STAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Local {
    /// The id of the template that machines of this bot are clones of, whether or not it was
    /// made; of the image as it is now, without a version.
    ///
    /// # Errors
    /// When the bot's image is not there, or not in that version.
    pub async fn template_of(
        &self,
        bot: &BotMachine,
        version: Option<&str>,
    ) -> Result<Option<String>, Fault> {
        if bot.start == StartFrom::Cold {
            return Ok(None);
        }
        let (image, shape, prepare) = self.resolve(bot, version).await?;
        Ok(Some(self.host.template_id(&shape, &image, &prepare)))
    }

    /// The image of this name: in this version, or as it is now.
    pub(super) async fn image(&self, name: &str, version: Option<&str>) -> Result<Image, Fault> {
        let (name, version) = (name.to_owned(), version.map(str::to_owned));
        self.in_store(move |images| match version {
            Some(version) => images.get_version(&name, &version),
            None => images.get(&name),
        })
        .await
    }

    /// What `bot` is on this host: its image, the shape of its machines, the words for the agent.
    pub(super) async fn resolve(
        &self,
        bot: &BotMachine,
        version: Option<&str>,
    ) -> Result<(Image, MachineShape, Prepare), Fault> {
        let BotMachine {
            bot: _,
            image,
            memory_mib,
            vcpus,
            disk_mib,
            network,
            start: _,
            cloud: _,
            reserve: _,
            run,
        } = bot;
        let image = self.image(image, version).await?;
        let shape = MachineShape {
            memory_mib: *memory_mib,
            vcpus: *vcpus,
            disk_mib: *disk_mib,
            network: reached(network),
        };
        let config = image.config.clone();
        let prepare = run.prepare(&ImageRun {
            argv: config.argv,
            env: config.env,
            cwd: config.cwd,
            uid: config.uid,
            gid: config.gid,
        });
        Ok((image, shape, prepare))
    }

    /// Removes old templates, and versions of images, that are not among these.
    pub(super) async fn remove_unused(&self, used: &[BotVersion]) -> Result<(), Fault> {
        let wanted = self.templates_of(used).await;
        for template in self.host.templates().map_err(fault)? {
            let age = SystemTime::now().duration_since(baked_at(&template)).unwrap_or_default();
            if wanted.iter().any(|id| id == template.id()) || age < UNUSED_TEMPLATES_STAY {
                continue;
            }
            self.host.remove_template(template.id()).await.map_err(fault)?;
            tracing::info!(template.id = template.id(), "removed a template that no bot uses");
        }
        let mut images: Vec<&str> = used.iter().map(|one| one.bot.image.as_str()).collect();
        images.sort_unstable();
        images.dedup();
        for image in images {
            self.remove_unused_images(image, used).await?;
        }
        Ok(())
    }

    /// Removes this version's template and image, unless others of these use them.
    pub(super) async fn remove_version(
        &self,
        gone: &BotVersion,
        used: &[BotVersion],
    ) -> Result<(), Fault> {
        let template = self.template_of(&gone.bot, gone.version.as_deref()).await.ok().flatten();
        if let Some(id) = template
            && !self.templates_of(used).await.contains(&id)
        {
            self.host.remove_template(&id).await.map_err(fault)?;
            tracing::info!(
                template.id = id,
                bot = gone.bot.bot,
                "removed an old version's template"
            );
        }
        self.remove_unused_images(&gone.bot.image, used).await
    }

    /// A bot without an image has no template either.
    async fn templates_of(&self, bots: &[BotVersion]) -> Vec<String> {
        let mut ids = Vec::new();
        for BotVersion { bot, version } in bots {
            ids.extend(self.template_of(bot, version.as_deref()).await.ok().flatten());
        }
        ids
    }

    async fn remove_unused_images(&self, name: &str, used: &[BotVersion]) -> Result<(), Fault> {
        let of_image = used.iter().filter(|one| one.bot.image == name);
        let used: Vec<String> = of_image.filter_map(|one| one.version.clone()).collect();
        let image = name.to_owned();
        let removed = self
            .in_store(move |images| {
                match images.retain(&image, |kept| used.contains(&kept.version())) {
                    // Nothing is kept of an image that is not there.
                    Err(ImageError::NotFound { .. }) => Ok(Vec::new()),
                    removed => removed,
                }
            })
            .await?;
        for image in removed {
            tracing::info!(image = name, version = image.version(), "removed an old version");
        }
        Ok(())
    }

    /// Files are read and removed in a thread of their own.
    async fn in_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ImageStore) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Fault> {
        let images = Arc::clone(&self.images);
        let done = tokio::task::spawn_blocking(move || work(&images)).await;
        done.expect("work on images does not panic").map_err(image_fault)
    }
}

fn baked_at(template: &Found) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(template.facts().baked_at_ms)
}
