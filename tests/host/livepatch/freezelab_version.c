/* A livepatch for the lab's own tests: /proc/version says that it is patched. */
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int patched_version(struct seq_file *file, void *unused)
{
	seq_puts(file, "patched live by freezelab\n");
	return 0;
}

static struct klp_func functions[] = {
	{ .old_name = "version_proc_show", .new_func = patched_version },
	{ }
};

static struct klp_object objects[] = {
	{ .funcs = functions }, /* no name: the kernel itself */
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init begin(void)
{
	return klp_enable_patch(&patch);
}

static void __exit end(void)
{
}

module_init(begin);
module_exit(end);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
