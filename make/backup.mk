# Backups of the service that `make up` runs, and what is brought back out of them (docs/operations.md, "Getting it back").
# Variables of the command line and of the environment reach the program: BACKUP_DIR, BACKUP_KEY_FILE, BACKUP_KEEP, …

# A program that is there already, in place of one that is built.
PYCRUDAPI ?=
BACKUP_PROGRAM = $(or $(PYCRUDAPI),target/release/pycrudapi)

.PHONY: backup
backup: backup-program ## back up the running service into BACKUP_DIR (DATA_DIR, BACKUP_KEY_FILE, BACKUP_KEEP)
	@DATA_DIR="$${DATA_DIR:-var}" "$(BACKUP_PROGRAM)" backup

.PHONY: restore
restore: backup-program ## bring a backup of BACKUP_DIR back into the new directory INTO (AT, BACKUP, BACKUP_KEY_FILE)
	@RESTORE_INTO="$$INTO" "$(BACKUP_PROGRAM)" restore $(if $(AT),--at "$$AT") $(if $(BACKUP),--backup "$$BACKUP")

.PHONY: backup-program
backup-program: $(if $(PYCRUDAPI),,cargo)
	@$(if $(PYCRUDAPI),,scripts/install-packages $(POSTGRESQL) $(BUILD_PACKAGES) && cargo build --release --quiet)
