# The commands of this project; CMakePresets.json has the build itself. What the commands build and log is in build/.
PRESET ?= release
BUILD := build/$(PRESET)
LOGS := build/logs
EXAMPLE ?= scenarios/examples/lwm_7b_1m_ring.toml

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.PHONY: help demo test bench error_tables format clean packages configure

help:
	@echo 'make demo     install what is missing, build the program, simulate an example'
	@echo 'make test     install what is missing, build everything, run all tests'
	@echo 'make bench    time the simulator'
	@echo "make error_tables   write the tables of errors in README.md and validate/measured/errors.md anew"
	@echo 'make format   format the C++ and CUDA code'
	@echo 'make clean    remove the folder build'

packages:
	@tools/install_packages.sh

configure: packages
	@tools/quietly.sh $(LOGS)/configure.log cmake --preset $(PRESET)

demo: configure
	@echo 'Building $(BUILD)/orrery (a minute or two, the first time)'
	@tools/quietly.sh $(LOGS)/build.log cmake --build $(BUILD) --target orrery
	@echo 'Running $(BUILD)/orrery simulate $(EXAMPLE)'
	@echo
	@$(BUILD)/orrery simulate $(EXAMPLE)

test: configure
	@echo 'Building the program and its tests in $(BUILD) (a few minutes, the first time)'
	@tools/quietly.sh $(LOGS)/build.log cmake --build $(BUILD)
	@ctest --preset $(PRESET) --progress --parallel $$(nproc)

bench: configure
	@tools/quietly.sh $(LOGS)/build.log cmake --build $(BUILD) --target orrery
	@cmake --build $(BUILD) --target bench

error_tables: configure
	@tools/quietly.sh $(LOGS)/build.log cmake --build $(BUILD) --target orrery
	@tools/error_tables.py $(BUILD)/orrery README.md validate/measured/errors.md

format:
	git ls-files -z '*.cpp' '*.hpp' '*.cu' | xargs -0 clang-format -i

clean:
	rm -rf build
