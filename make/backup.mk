# Backups of the service that `make up` runs, and restores (docs/operations.md, "Backup and restore").
# Variables of the command line and the environment are passed to the program: BACKUP_DIR, BACKUP_KEY_FILE, BACKUP_KEEP, …

# An existing binary to use instead of building one.
PYCRUDAPI ?=
BACKUP_PROGRAM = $(or $(PYCRUDAPI),target/release/pycrudapi)

.PHONY: backup
backup: backup-program ## back up the running service into BACKUP_DIR (DATA_DIR, BACKUP_KEY_FILE, BACKUP_KEEP)
	@DATA_DIR="$${DATA_DIR:-var}" "$(BACKUP_PROGRAM)" backup

.PHONY: restore
restore: backup-program ## restore a backup of BACKUP_DIR into the new directory INTO (AT, BACKUP, BACKUP_KEY_FILE)
	@RESTORE_INTO="$$INTO" "$(BACKUP_PROGRAM)" restore $(if $(AT),--at "$$AT") $(if $(BACKUP),--backup "$$BACKUP")

.PHONY: backup-program
backup-program: $(if $(PYCRUDAPI),,cargo)
	@$(if $(PYCRUDAPI),,scripts/install-packages $(POSTGRESQL) $(BUILD_PACKAGES) && cargo build --release --quiet)
